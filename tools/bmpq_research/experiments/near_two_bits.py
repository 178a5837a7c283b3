"""What may help kernels of 2 bits, each by itself (docs/experiments/near_two_bits.md)."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import keras
import tensorflow as tf

from bmpq_tf.arithmetic import quantizers
from bmpq_tf.model.keras_graph import sublayers
from bmpq_tf.model.kernels import model_kernels

NARROW = 2
# -2, -1, 0, 1; -3, -1, 1, 3 half steps; and what the library does not have: -1, 0, 1; -1, 1 half
# steps, as kernels of 1 bit would.
LEVELS = (*quantizers.TWO_BIT_LEVELS, "ternary", "binary")
_LIKE = {"ternary": "twos_complement", "binary": "symmetric"}
_LIMITS = {"ternary": 1.0, "binary": 0.5}
GRADIENTS = ("clipped", "through")


def two_bit_levels(levels: str) -> str:
    """Returns what `QuantizationConfig` calls the levels that `quantized_so` makes these of."""
    return _LIKE.get(levels, levels)


@contextlib.contextmanager
def quantized_so(levels: str, gradient: str) -> Iterator[None]:
    """Gives kernels of 2 bits these levels and this gradient while it lasts.

    Args:
        levels: one of `LEVELS`.
        gradient: `"clipped"`, or `"through"`: weights beyond the clipping range get theirs too.
    """
    with contextlib.ExitStack() as changes:
        if levels in _LIKE:
            ranges = quantizers._RANGES[_LIKE[levels]].copy()
            ranges[NARROW] = -_LIMITS[levels], _LIMITS[levels]
            changed = {**quantizers._RANGES, _LIKE[levels]: ranges}
            changes.enter_context(mock.patch.object(quantizers, "_RANGES", changed))
        if gradient == "through":
            changes.enter_context(mock.patch.object(quantizers, "fake_quantize", _through))
        yield


def _through(weights, scale, bits, on_gradient=None, levels="twos_complement"):
    lowest, highest = quantizers.level_range(bits, levels)
    ratio = weights / scale
    clipped = tf.clip_by_value(ratio, lowest, highest)
    # Its gradients are those of the library's quantizer, taken by TensorFlow.
    steps = quantizers.quantize(weights, scale, bits, levels)
    quantized = scale * (clipped + tf.stop_gradient(steps - clipped))
    beyond = tf.cast((ratio != clipped) & (tf.cast(bits, tf.int32) == NARROW), tf.float32)
    quantized += (weights - tf.stop_gradient(weights)) * beyond
    return _watched(quantized, on_gradient) if on_gradient else quantized


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
