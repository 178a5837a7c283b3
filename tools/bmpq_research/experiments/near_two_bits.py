"""What may help kernels of 2 bits, each by itself (docs/experiments.md, "Near 2 bits")."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf.arithmetic import quantizers
from bmpq_tf.model.keras_graph import sublayers
from bmpq_tf.model.kernels import model_kernels

NARROW = 2
# Limits of w / S, and what whole steps are shifted by.
LEVELS = {
    "twos_complement": (-2.0, 1.0, 0.0),
    "ternary": (-1.0, 1.0, 0.0),
    "half_steps": (-1.5, 1.5, 0.5),
}
GRADIENTS = ("clipped", "through")


def has_files(levels: str) -> bool:
    """Whether an export can hold these levels: it knows whole steps only."""
    return not LEVELS[levels][2]


@contextlib.contextmanager
def quantized_so(levels: str, gradient: str) -> Iterator[None]:
    """Gives kernels of 2 bits these levels and this gradient while it lasts.

    Args:
        levels: one of `LEVELS`: -2 to 1; -1, 0, 1; or -3, -1, 1, 3 half steps.
        gradient: `"clipped"`, or `"through"`: weights beyond the clipping range get theirs too.
    """
    if (levels, gradient) == ("twos_complement", "clipped"):
        yield
        return
    low, high, shift = LEVELS[levels]
    ranges = quantizers._RANGES.copy()
    ranges[NARROW] = low, high
    shifts = np.zeros(len(ranges), np.float32)
    shifts[NARROW] = shift

    def steps(ratio, bits):
        bits = tf.cast(bits, tf.int32)
        lowest, highest = tf.unstack(tf.gather(ranges, bits))
        by = tf.gather(shifts, bits)
        # Floors, so that no tie rounds past an end.
        rounded = tf.where(by > 0.0, tf.floor(ratio) + by, tf.round(ratio))
        return tf.clip_by_value(rounded, lowest, highest)

    def quantize(weights, scale, bits):
        return steps(weights / scale, bits)

    def fake_quantize(weights, scale, bits, on_gradient=None):
        lowest, highest = tf.unstack(tf.gather(ranges, tf.cast(bits, tf.int32)))
        ratio = weights / scale
        clipped = tf.clip_by_value(ratio, lowest, highest)
        # Its gradients are those of the library's quantizer, taken by TensorFlow.
        quantized = scale * (clipped + tf.stop_gradient(steps(ratio, bits) - clipped))
        if gradient == "through":
            beyond = tf.cast((ratio != clipped) & (tf.cast(bits, tf.int32) == NARROW), tf.float32)
            quantized += (weights - tf.stop_gradient(weights)) * beyond
        return _watched(quantized, on_gradient) if on_gradient else quantized

    with (
        mock.patch.object(quantizers, "_RANGES", ranges),
        mock.patch.object(quantizers, "quantize", quantize),
        mock.patch.object(quantizers, "fake_quantize", fake_quantize),
    ):
        yield


def _watched(quantized, on_gradient):
    @tf.custom_gradient
    def passed(values):
        def grad(upstream):
            upstream = tf.convert_to_tensor(upstream)
            upstream.set_shape(values.shape)
            with tf.control_dependencies(on_gradient(upstream)):
                return tf.identity(upstream)

        return tf.identity(values), grad

    return passed(quantized)


class NarrowDecay(keras.callbacks.Callback):
    """Gives kernels of 2 bits a share of the weight decay that the others get.

    Args:
        share: from 0 to 1.
    """

    def __init__(self, share: float):
        super().__init__()
        self.share = share
        self._narrow: list[keras.Variable] = []

    def on_epoch_begin(self, epoch, logs=None):
        self._narrow = [
            state.variable
            for state in model_kernels(self.model)
            if state.quantizer and state.bits == NARROW
        ]

    def on_train_batch_end(self, batch, logs=None):
        optimizer = self.model.optimizer
        decayed = float(optimizer.learning_rate) * optimizer.weight_decay
        for kernel in self._narrow:
            kernel.assign(kernel * (1.0 + (1.0 - self.share) * decayed))


def estimate_batch_statistics(model: keras.Model, batches: tf.data.Dataset, count: int) -> None:
    """Replaces the moving averages of BatchNormalization layers by the means over batches."""
    normalised = [
        layer for layer in sublayers(model) if isinstance(layer, keras.layers.BatchNormalization)
    ]
    before = [layer.momentum for layer in normalised]
    for number, (inputs, *_) in enumerate(batches.take(count)):
        for layer in normalised:
            layer.momentum = number / (number + 1)
        model(inputs, training=True)
    for layer, momentum in zip(normalised, before, strict=True):
        layer.momentum = momentum
