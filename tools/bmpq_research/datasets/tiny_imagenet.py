"""Tiny-ImageNet from the folders of its official archive, whole or with fewer classes.

    wnids.txt                            the classes, one a line; take lines away to use fewer
    train/<class>/images/*.JPEG          named in train/<class>/<class>_boxes.txt
    val/images/*.JPEG                    named in val/val_annotations.txt with their class

The labels of its test images were never published, so its validation images are the test set here,
as everywhere.
"""

import pathlib

import numpy as np
import tensorflow as tf

from bmpq_research.datasets.image_dataset import DatasetNotFoundError, ImageDataset

FOLDER = "tiny-imagenet-200"
SIDE = 64


def tiny_imagenet(name: str, data_dir: str | None, download: bool = False) -> ImageDataset:
    """Loads the classes that `wnids.txt` lists, labelled in its order.

    Training images in a fixed random order.

    Args:
        name: that the data set is to have.
        data_dir: the folder that holds `wnids.txt`, or the one above it.
        download: not used; the archive has to be extracted by hand.

    Raises:
        DatasetNotFoundError: the folder is not there, or was extracted in part; the message says
            what is missing.
        ValueError: a file is no JPEG of 64x64 pixels.
    """
    root = _root(data_dir)
    classes = (root / "wnids.txt").read_text().split()
    train = [
        (path, label) for label, wnid in enumerate(classes) for path in _train_files(root, wnid)
    ]
    test = _validation_files(root, classes)
    missing = [path for path, _ in [*train, *test] if not path.exists()]
    if missing:
        raise DatasetNotFoundError(
            f"Tiny-ImageNet is not whole. Looked in '{root}', which lacks {len(missing):,} of "
            f"{len(train) + len(test):,} images, "
            f"such as '{missing[0].relative_to(root)}'. Extract the archive again."
        )
    # In the folders the images are sorted by class, and a validation split takes the last ones.
    train = [train[index] for index in np.random.default_rng(0).permutation(len(train))]
    return ImageDataset(
        name, _decoded(train), _decoded(test), len(classes), augment=True, crop_padding=8
    )


def _root(data_dir: str | None) -> pathlib.Path:
    given = pathlib.Path(data_dir or ".")
    looked = [given, given / FOLDER]
    for folder in looked:
        if (folder / "wnids.txt").is_file():
            return folder
    raise DatasetNotFoundError(
        f"Tiny-ImageNet was not found. Looked for '{looked[0] / 'wnids.txt'}' and "
        f"'{looked[1] / 'wnids.txt'}'. Give --data_dir the folder "
        f"that {FOLDER}.zip was extracted to."
    )


def _train_files(root: pathlib.Path, wnid: str) -> list[pathlib.Path]:
    folder = root / "train" / wnid
    return [
        folder / "images" / line.split("\t")[0] for line in _lines(folder / f"{wnid}_boxes.txt")
    ]


def _validation_files(root: pathlib.Path, classes: list[str]) -> list[tuple[pathlib.Path, int]]:
    labels = {wnid: label for label, wnid in enumerate(classes)}
    rows = [line.split("\t")[:2] for line in _lines(root / "val" / "val_annotations.txt")]
    return [
        (root / "val" / "images" / image, labels[wnid]) for image, wnid in rows if wnid in labels
    ]


def _lines(path: pathlib.Path) -> list[str]:
    if not path.is_file():
        raise DatasetNotFoundError(
            f"Tiny-ImageNet is not whole. Looked for '{path}', which is not there. Extract the "
            "archive again."
        )
    return path.read_text().splitlines()


def _decoded(files: list[tuple[pathlib.Path, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Reads the images, grey ones in three channels too.

    Uint8 `(n, 64, 64, 3)`, with int64 labels `(n,)`.
    """
    images = np.empty((len(files), SIDE, SIDE, 3), np.uint8)
    contents = tf.data.Dataset.from_tensor_slices([str(path) for path, _ in files]).map(
        tf.io.read_file, 2, deterministic=True
    )
    for index, content in enumerate(contents.prefetch(64)):
        try:
            images[index] = tf.io.decode_jpeg(content, channels=3).numpy()
        except (tf.errors.InvalidArgumentError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise ValueError(
                f"An image is no JPEG of {SIDE}x{SIDE} pixels. Received: '{files[index][0]}'. It "
                f"says: {first}"
            ) from error
    return images, np.array([label for _, label in files], np.int64)
