"""Where images come from: scikit-learn's digits (embedded) and tfds."""

import dataclasses
from collections.abc import Callable

import numpy as np


class DatasetNotFoundError(FileNotFoundError):
    """The files of a data set are not where they were looked for."""


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """A data set in memory: uint8 images `(n, height, width, channels)` and int64 labels `(n,)`.

    Attributes:
        name: as `load_dataset` knows it.
        train, test: pairs of images and labels.
        num_classes: how many labels there are.
        augment: whether flips and shifts keep the labels (digits do not survive a flip).
        crop_padding: by how many pixels augmentation shifts.
    """

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    num_classes: int
    augment: bool
    crop_padding: int = 4

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.train[0].shape[1:]

    def with_validation(self, size: int) -> "ImageDataset":
        """Returns a data set whose `test` is the last `size` training images, and which knows nothing of the test set.

        Raises:
            ValueError: fewer training images than that.
        """
        images, labels = self.train
        if not 0 < size < len(labels):
            raise ValueError(f"The validation split must leave training images. Received: size={size} of {len(labels)}.")
        return dataclasses.replace(self, train=(images[:-size], labels[:-size]), test=(images[-size:], labels[-size:]))

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and standard deviation of each channel over the training images, float32, in pixel values."""
        images = self.train[0]
        # In parts, because a data set squared in float64 would be eight times its size.
        parts = [part for part in np.array_split(images, 64) if len(part)]
        pixels = images.size / images.shape[-1]
        mean = sum(part.sum(axis=(0, 1, 2), dtype=np.float64) for part in parts) / pixels
        square = sum(np.square(part, dtype=np.float64).sum(axis=(0, 1, 2)) for part in parts) / pixels
        return mean.astype(np.float32), np.sqrt(np.maximum(square - mean**2, 1.0)).astype(np.float32)


def load_dataset(name: str, data_dir: str | None = None, *, download: bool = False) -> ImageDataset:
    """Loads a data set by name.

    Args:
        name: one of `DATASETS`.
        data_dir: where the files are; tfds's own default if `None`. `digits` needs none.
        download: whether tfds may fetch what is missing.

    Raises:
        ValueError: the name is not known.
        DatasetNotFoundError: the files are not there; the message says what was looked for.
    """
    if name not in DATASETS:
        raise ValueError(f"Unknown dataset. Received: dataset={name!r}. Known: {', '.join(DATASETS)}.")
    return DATASETS[name](name, data_dir, download)


def _digits(name: str, data_dir: str | None, download: bool) -> ImageDataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8, 1) * (255 / 16)).round().astype(np.uint8)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=360, random_state=0, stratify=labels)
    return ImageDataset(name, (train_x, train_y), (test_x, test_y), 10, augment=False)


def _tfds(name: str, data_dir: str | None, download: bool) -> ImageDataset:
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.data_path.exists():
        if not download:
            raise DatasetNotFoundError(
                f"Dataset '{name}' was not found. Looked for '{builder.data_path}'. Give --data_dir the folder that holds "
                f"'{name}/', or allow the download with --download."
            )
        builder.download_and_prepare()
    parts = {split: tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1)) for split in ("train", "test")}
    pairs = {split: (part["image"], part["label"].astype(np.int64)) for split, part in parts.items()}
    return ImageDataset(name, pairs["train"], pairs["test"], builder.info.features["label"].num_classes, augment=True)


DATASETS: dict[str, Callable[[str, str | None, bool], ImageDataset]] = {"digits": _digits, "cifar10": _tfds}
