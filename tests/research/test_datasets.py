"""Batches are functions of (seed, epoch); a missing data set says where it was looked for."""

import numpy as np
import pytest
import tensorflow as tf

from bmpq_research.datasets import (
    DatasetNotFoundError,
    EpochCounter,
    ImageDataset,
    evaluation_batches,
    load_dataset,
    training_batches,
)


def batches(epoch, seed=0, augment=True, images=None):
    images = (
        np.arange(40 * 8 * 8 * 1, dtype=np.uint8).reshape(40, 8, 8, 1) if images is None else images
    )
    counter = EpochCounter()
    data = training_batches(
        images,
        np.arange(40),
        batch_size=8,
        seed=seed,
        counter=counter,
        mean=0.0,
        std=1.0,
        augment=augment,
        crop_padding=2,
    )
    counter.on_epoch_begin(epoch)
    assert len(data) == 5
    parts = [(x.numpy(), y.numpy()) for x, y in data]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def test_an_epoch_is_the_same_whenever_it_is_read():
    for one, two in zip(batches(3), batches(3), strict=True):
        np.testing.assert_array_equal(one, two)


def test_epochs_and_seeds_differ_in_order_and_augmentation_and_lose_nothing():
    x3, y3 = batches(3)
    x4, y4 = batches(4)
    _, other = batches(3, seed=1)
    assert not np.array_equal(y3, y4)
    assert not np.array_equal(y3, other)
    assert sorted(y3) == sorted(y4) == list(range(40))
    assert not np.array_equal(x3[np.argsort(y3)], x4[np.argsort(y4)])


def test_without_augmentation_images_stay_with_their_labels():
    images = np.repeat(np.arange(40, dtype=np.uint8), 64).reshape(40, 8, 8, 1)
    x, y = batches(0, augment=False, images=images)
    np.testing.assert_array_equal(x[:, 0, 0, 0], y)


def test_augmented_images_are_shifts_and_flips():
    image = np.zeros((40, 8, 8, 1), np.uint8)
    image[:, 4, 2] = 255
    x, _ = batches(0, images=image)
    positions = {tuple(int(i) for i in np.argwhere(one[..., 0])[0]) for one in x if one.any()}
    assert len(positions) > 5
    assert all(
        2 <= row <= 6 and (0 <= column <= 4 or 3 <= column <= 7) for row, column in positions
    )


def test_digits_are_embedded_and_their_split_is_fixed():
    pytest.importorskip("sklearn")
    one, two = load_dataset("digits"), load_dataset("digits")
    np.testing.assert_array_equal(one.test[0], two.test[0])
    assert (len(one.train[1]), len(one.test[1]), one.image_shape, one.num_classes) == (
        1437,
        360,
        (8, 8, 1),
        10,
    )
    mean, std = one.moments()
    pixels = one.train[0].astype(np.float64)
    np.testing.assert_allclose([mean[0], std[0]], [pixels.mean(), pixels.std()], rtol=1e-4)
    ((images, _),) = evaluation_batches(*one.test, batch_size=1000, mean=mean, std=std)
    assert abs(float(np.mean(images))) < 0.05


def test_a_validation_split_leaves_the_test_set_alone():
    dataset = ImageDataset(
        "x",
        (np.zeros((10, 2, 2, 1), np.uint8), np.arange(10)),
        (np.ones((4, 2, 2, 1), np.uint8), np.arange(4)),
        10,
        False,
    )
    held = dataset.with_validation(3)
    np.testing.assert_array_equal(held.test[1], [7, 8, 9])
    np.testing.assert_array_equal(held.train[1], range(7))
    with pytest.raises(ValueError, match="Received: size=10 of 10"):
        dataset.with_validation(10)


def test_missing_and_unknown_data_say_what_to_do(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(DatasetNotFoundError, match=r"Looked for .*cifar10.*--data_dir.*--download"):
        load_dataset("cifar10", str(tmp_path))
    with pytest.raises(
        ValueError,
        match=(
            r"Unknown dataset. Received: dataset='mnist'. Known: digits, cifar10, cifar100, "
            r"spoken_digits, tiny_imagenet"
        ),
    ):
        load_dataset("mnist")


def test_cifar10_is_what_tfds_prepared(data_dir):
    folder = data_dir / "tensorflow_datasets"
    if not (folder / "cifar10").exists():
        pytest.skip(f"there is no CIFAR-10 in {folder}")
    dataset = load_dataset("cifar10", str(folder))
    assert dataset.train[0].shape == (50_000, 32, 32, 3)
    assert dataset.test[0].shape == (10_000, 32, 32, 3)
    assert np.bincount(dataset.test[1]).tolist() == [1000] * 10


# tfds's mock builds its examples by deprecated calls.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_cifar100_comes_through_tfds():
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=7):
        dataset = load_dataset("cifar100", None, download=True)
    assert dataset.train[0].shape == (7, 32, 32, 3)
    assert dataset.train[0].dtype == np.uint8
    assert (dataset.test[1].shape, dataset.test[1].dtype) == ((7,), np.int64)
    assert dataset.num_classes == 100


def test_tfds_files_that_are_missing_are_named(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    with pytest.raises(
        DatasetNotFoundError, match=r"not whole. Looked in .*cifar10.*lacks dataset_info.json"
    ):
        load_dataset("cifar10", str(tmp_path))


@pytest.fixture
def tiny(tmp_path):
    """Three classes of four grey images in Tiny-ImageNet's folders.

    The pixels tell class and number.
    """
    root = tmp_path / "tiny-imagenet-200"
    wnids = ["n03", "n01", "n02"]
    annotations = []
    for label, wnid in enumerate(wnids):
        names = [f"{wnid}_{number}.JPEG" for number in range(4)]
        for number, name in enumerate(names):
            pixels = np.full((64, 64, 1 if number else 3), 60 * label + 10 * number, np.uint8)
            for folder in (root / "train" / wnid / "images", root / "val" / "images"):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(tf.io.encode_jpeg(pixels).numpy())
            annotations.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(
            "".join(f"{name}\t0\t0\t63\t63\n" for name in names)
        )
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    (root / "wnids.txt").write_text("\n".join(wnids))
    return root


def test_tiny_imagenet_is_read_from_its_folders(tiny):
    dataset = load_dataset("tiny_imagenet", str(tiny.parent))
    assert dataset.train[0].shape == dataset.test[0].shape == (12, 64, 64, 3)
    assert dataset.num_classes == 3
    for images, labels in (dataset.train, dataset.test):
        np.testing.assert_array_equal(images[:, 0, 0, 0] // 60, labels)
    # A validation split takes the last ones, so they must not be all of one class.
    assert len(set(dataset.train[1][-4:])) > 1
    np.testing.assert_array_equal(
        load_dataset("tiny_imagenet", str(tiny)).train[0], dataset.train[0]
    )


def test_tiny_imagenet_with_fewer_classes(tiny):
    (tiny / "wnids.txt").write_text("n01\nn03\n")
    dataset = load_dataset("tiny_imagenet", str(tiny))
    assert (len(dataset.train[1]), len(dataset.test[1]), dataset.num_classes) == (8, 8, 2)
    np.testing.assert_array_equal(
        dataset.test[0][:, 0, 0, 0] // 60, np.where(dataset.test[1] == 0, 1, 0)
    )


def test_tiny_imagenet_that_is_not_whole_says_what_is_missing(tiny, tmp_path):
    with pytest.raises(
        DatasetNotFoundError,
        match=r"Looked for .*nowhere.wnids.txt' and .*nowhere.tiny-imagenet-200.wnids.txt'",
    ):
        load_dataset("tiny_imagenet", str(tmp_path / "nowhere"))
    broken = tiny / "train" / "n02" / "images" / "n02_1.JPEG"
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 3])
    with pytest.raises(ValueError, match=r"no JPEG of 64x64 pixels. Received: '.*n02_1.JPEG'"):
        load_dataset("tiny_imagenet", str(tiny))
    broken.unlink()
    with pytest.raises(
        DatasetNotFoundError, match=r"lacks 1 of 24 images, such as 'train/n02/images/n02_1.JPEG'"
    ):
        load_dataset("tiny_imagenet", str(tiny))
    (tiny / "val" / "val_annotations.txt").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"Looked for '.*val_annotations.txt'"):
        load_dataset("tiny_imagenet", str(tiny))
