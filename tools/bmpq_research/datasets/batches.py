"""Batches for `fit` and for evaluation.

tf.data restarts its own shuffle when a run resumes, so order and augmentation are drawn statelessly
from (seed, epoch): a resumed epoch sees what the uninterrupted one would have seen.
"""

import keras
import numpy as np
import tensorflow as tf

from bmpq_research.datasets.image_dataset import ImageDataset

_PARALLEL, _PREFETCHED = 2, 4


class EpochCounter(keras.callbacks.Callback):
    """Tells the training batches which epoch it is.

    Give it to `fit` beside the data that was made with it.
    """

    def __init__(self):
        super().__init__()
        self.epoch = tf.Variable(0, dtype=tf.int32, trainable=False)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch.assign(epoch)


def training_batches(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    counter: EpochCounter,
    mean: np.ndarray,
    std: np.ndarray,
    augment: bool,
    crop_padding: int = 4,
) -> tf.data.Dataset:
    """Returns one epoch of shuffled, normalised, augmented batches.

    What it yields depends on the seed and `counter.epoch`.

    Args:
        images: uint8 `(n, height, width, channels)`.
        labels: integers `(n,)`.
        batch_size: images a batch; a last, smaller batch is left out.
        seed: of order and augmentation.
        counter: the callback that knows the epoch.
        mean, std: of each channel, in pixel values.
        augment: pad-crop by `crop_padding` pixels and flip.

    Returns:
        Batches of float32 images and int64 labels.
    """
    batch_size = min(batch_size, len(labels))
    steps = len(labels) // batch_size
    pixels, classes = tf.constant(images), tf.constant(labels)

    def order(_):
        shuffled = tf.random.experimental.stateless_shuffle(
            tf.range(len(labels)), seed=[seed, counter.epoch]
        )
        return tf.data.Dataset.from_tensor_slices(shuffled).batch(batch_size, drop_remainder=True)

    def batch(number, indices):
        chosen = tf.gather(pixels, indices)
        if augment:
            chosen = _shift_and_flip(
                chosen, crop_padding, seed=[seed, counter.epoch * steps + tf.cast(number, tf.int32)]
            )
        return (tf.cast(chosen, tf.float32) - mean) / std, tf.gather(classes, indices)

    batches = (
        tf.data.Dataset.from_tensors(0)
        .flat_map(order)
        .enumerate()
        .map(batch, _PARALLEL, deterministic=True)
    )
    return _without_autotuning(
        batches.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(_PREFETCHED)
    )


def evaluation_batches(
    images: np.ndarray, labels: np.ndarray, *, batch_size: int, mean: np.ndarray, std: np.ndarray
) -> tf.data.Dataset:
    """Returns the images in their order, normalised, all of them."""
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)
    normalised = batches.map(
        lambda pixels, label: ((tf.cast(pixels, tf.float32) - mean) / std, label), _PARALLEL
    )
    return _without_autotuning(normalised.prefetch(_PREFETCHED))


def batches_of(
    dataset: ImageDataset, *, batch_size: int, seed: int, counter: EpochCounter
) -> tf.data.Dataset:
    """Returns one epoch of a data set's training images, normalised and augmented as it says."""
    mean, std = dataset.moments()
    return training_batches(
        *dataset.train,
        batch_size=batch_size,
        seed=seed,
        counter=counter,
        mean=mean,
        std=std,
        augment=dataset.augment,
        crop_padding=dataset.crop_padding,
    )


def normalised_test_images(dataset: ImageDataset, batch_size: int = 250) -> tf.data.Dataset:
    """Returns a data set's test images in their order, normalised as its training images are."""
    mean, std = dataset.moments()
    return evaluation_batches(*dataset.test, batch_size=batch_size, mean=mean, std=std)


def normalised_training_images(
    dataset: ImageDataset, count: int, batch_size: int = 128
) -> tf.data.Dataset:
    """Returns the first of a data set's training images, normalised.

    What integer files are calibrated on.
    """
    mean, std = dataset.moments()
    images, labels = dataset.train
    return evaluation_batches(
        images[:count], labels[:count], batch_size=batch_size, mean=mean, std=std
    )


def _without_autotuning(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The tuning thread wakes at doubling intervals, and an iterator's end waits for it.

    Up to half an epoch, seen on 2 cores.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def _shift_and_flip(images: tf.Tensor, padding: int, seed) -> tf.Tensor:
    """Pad-crop and horizontal flip, each image by its own draw, the whole batch at once."""
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    draws = tf.random.stateless_uniform([3, count], seed, maxval=1.0)
    offsets = tf.cast(draws[:2] * (2 * padding + 1), tf.int32)
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    rows = tf.gather(padded, offsets[0][:, None] + tf.range(height), axis=1, batch_dims=1)
    columns = tf.where(draws[2][:, None] < 0.5, tf.range(width), tf.range(width)[::-1])
    return tf.gather(rows, offsets[1][:, None] + columns, axis=2, batch_dims=1)
