"""Images and labels in memory, and the splits taken of them."""

import dataclasses
import hashlib

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

    def fingerprint(self) -> str:
        """Returns words that tell it from others of its name, whatever folder it came from.

        How many images and classes, and a hash of them all.
        """
        digest = hashlib.blake2b(digest_size=6)
        for array in (*self.train, *self.test):
            digest.update(np.ascontiguousarray(array))
        return (
            f"{len(self.train[1])} and {len(self.test[1])} images, {self.num_classes} classes, "
            f"{digest.hexdigest()}"
        )

    def with_validation(self, size: int) -> "ImageDataset":
        """Returns a data set whose `test` is the last `size` training images, and which knows
        nothing of the test set.

        Raises:
            ValueError: fewer training images than that.
        """
        images, labels = self.train
        if not 0 < size < len(labels):
            raise ValueError(
                f"The validation split must leave training images. Received: size={size} of "
                f"{len(labels)}."
            )
        return dataclasses.replace(
            self, train=(images[:-size], labels[:-size]), test=(images[-size:], labels[-size:])
        )

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and standard deviation of each channel over the training images, float32, in
        pixel values.
        """
        images = self.train[0]
        # In parts, because a data set squared in float64 would be eight times its size.
        parts = [part for part in np.array_split(images, 64) if len(part)]
        pixels = images.size / images.shape[-1]
        mean = sum(part.sum(axis=(0, 1, 2), dtype=np.float64) for part in parts) / pixels
        square = (
            sum(np.square(part, dtype=np.float64).sum(axis=(0, 1, 2)) for part in parts) / pixels
        )
        return mean.astype(np.float32), np.sqrt(np.maximum(square - mean**2, 1.0)).astype(
            np.float32
        )
