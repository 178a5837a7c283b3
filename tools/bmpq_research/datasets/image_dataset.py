"""Images and labels in memory, and the splits taken of them."""

import dataclasses
import hashlib
import math

import numpy as np


class DatasetNotFoundError(FileNotFoundError):
    """The files of a data set are not where they were looked for."""


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """A data set in memory: images `(n, height, width, channels)`, uint8, or float32 where they are
    features of something else, and int64 labels `(n,)`.

    Attributes:
        name: as `load_dataset` knows it.
        train, test: pairs of images and labels.
        num_classes: how many labels there are.
        augment: whether flips and shifts keep the labels (digits do not survive a flip).
        crop_padding: by how many pixels augmentation shifts.
        moments_over: the axes that a mean and a deviation are taken over: those of the images, so
            that each channel has its own.
    """

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    num_classes: int
    augment: bool
    crop_padding: int = 4
    moments_over: tuple[int, ...] = (0, 1, 2)

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
        """Returns mean and standard deviation over the training images, float32, in pixel values:
        of each channel, or of what `moments_over` leaves.
        """
        images = self.train[0]
        # In parts, because a data set squared in float64 would be eight times its size.
        parts = [part for part in np.array_split(images, 64) if len(part)]
        over = self.moments_over
        pixels = math.prod(images.shape[axis] for axis in over)
        mean = sum(part.sum(axis=over, dtype=np.float64) for part in parts) / pixels
        square = sum(np.square(part, dtype=np.float64).sum(axis=over) for part in parts) / pixels
        # What hardly varies is not to be blown up: less than a pixel value is noise.
        least = 1.0 if images.dtype == np.uint8 else 1e-6
        std = np.sqrt(np.maximum(square - mean**2, least))
        return mean.astype(np.float32), std.astype(np.float32)
