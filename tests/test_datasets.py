"""Batches are functions of (seed, epoch); a missing data set says where it was looked for."""

import pathlib

import keras
import numpy as np
import pytest

from bmpq_tf.datasets import DatasetNotFoundError, EpochCounter, ImageDataset, evaluation_batches, load_dataset, training_batches
from bmpq_tf.models import build_model

REAL = pathlib.Path(__file__).parent.parent.parent / "shared" / "datasets" / "tensorflow_datasets"


def batches(epoch, seed=0, augment=True, images=None):
    images = np.arange(40 * 8 * 8 * 1, dtype=np.uint8).reshape(40, 8, 8, 1) if images is None else images
    counter = EpochCounter()
    data = training_batches(images, np.arange(40), batch_size=8, seed=seed, counter=counter, mean=0.0, std=1.0, augment=augment, crop_padding=2)
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
    assert all(2 <= row <= 6 and (0 <= column <= 4 or 3 <= column <= 7) for row, column in positions)


def test_digits_are_embedded_and_their_split_is_fixed():
    pytest.importorskip("sklearn")
    one, two = load_dataset("digits"), load_dataset("digits")
    np.testing.assert_array_equal(one.test[0], two.test[0])
    assert (len(one.train[1]), len(one.test[1]), one.image_shape, one.num_classes) == (1437, 360, (8, 8, 1), 10)
    mean, std = one.moments()
    pixels = one.train[0].astype(np.float64)
    np.testing.assert_allclose([mean[0], std[0]], [pixels.mean(), pixels.std()], rtol=1e-4)
    ((images, _),) = evaluation_batches(*one.test, batch_size=1000, mean=mean, std=std)
    assert abs(float(np.mean(images))) < 0.05


def test_a_validation_split_leaves_the_test_set_alone():
    dataset = ImageDataset("x", (np.zeros((10, 2, 2, 1), np.uint8), np.arange(10)), (np.ones((4, 2, 2, 1), np.uint8), np.arange(4)), 10, False)
    held = dataset.with_validation(3)
    np.testing.assert_array_equal(held.test[1], [7, 8, 9])
    np.testing.assert_array_equal(held.train[1], range(7))
    with pytest.raises(ValueError, match="Received: size=10 of 10"):
        dataset.with_validation(10)


def test_missing_and_unknown_data_say_what_to_do(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(DatasetNotFoundError, match=r"Looked for .*cifar10.*--data_dir.*--download"):
        load_dataset("cifar10", str(tmp_path))
    with pytest.raises(ValueError, match=r"Unknown dataset. Received: dataset='mnist'. Known: digits, cifar10"):
        load_dataset("mnist")


@pytest.mark.skipif(not REAL.exists(), reason="CIFAR-10 as tfds prepares it is not beside the checkout")
def test_cifar10_is_what_tfds_prepared():
    dataset = load_dataset("cifar10", str(REAL))
    assert dataset.train[0].shape == (50_000, 32, 32, 3)
    assert dataset.test[0].shape == (10_000, 32, 32, 3)
    assert np.bincount(dataset.test[1]).tolist() == [1000] * 10


def test_resnet20_has_the_published_size():
    assert build_model("resnet20", (32, 32, 3), 10).count_params() == pytest.approx(0.27e6, rel=0.02)
    assert build_model("resnet20", (32, 32, 3), 10, width=0.5).count_params() < 0.08e6


def test_unknown_models_and_widths_are_named():
    with pytest.raises(ValueError, match=r"Received: model='alexnet'. Known: digits_cnn, resnet20"):
        build_model("alexnet", (8, 8, 1), 10)
    with pytest.raises(ValueError, match="width=0"):
        build_model("resnet20", (8, 8, 1), 10, width=0)


def test_digits_cnn_has_a_depthwise_layer():
    model = build_model("digits_cnn", (8, 8, 1), 10)
    assert any(isinstance(layer, keras.layers.DepthwiseConv2D) for layer in model.layers)
