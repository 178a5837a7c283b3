"""The part of a kernel's quantizer that gives its scales: by a rule, or learned from where a rule
starts them.
"""

import math
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from bmpq_tf.arithmetic import normalisation, scales
from bmpq_tf.arithmetic.quantizers import TWO_BIT_LEVELS
from bmpq_tf.layers.config import QuantizerConfig

# A mixin: Keras's class comes behind it.
_Layer = keras.layers.Layer if TYPE_CHECKING else object


class KernelScales(_Layer):
    """A kernel's scales at its present width, and what is rounded by them."""

    config: QuantizerConfig
    channel_axes: tuple[int, ...]
    bits: keras.Variable
    scale_base: keras.Variable
    log_gain: keras.Variable
    _channels_shape: tuple[int, ...]
    _is_started: bool

    @property
    def scale_axes(self) -> tuple[int, ...]:
        """The axes that a rule or training gives a scale each, of normalised kernels where they
        are; none where one serves the tensor.
        """
        return self.channel_axes if self.config.granularity == "channel" else ()

    def quantized_from(self, kernel) -> tf.Tensor:
        """Returns what is rounded: the float kernel, without its channels' means where kernels are
        normalised.
        """
        kernel = tf.convert_to_tensor(kernel)
        return (
            normalisation.centred(kernel, self.channel_axes)
            if self._is_normalised(kernel)
            else kernel
        )

    def deviation(self, centred) -> tf.Tensor | float:
        """Returns the deviation of each channel of what is rounded, a factor of its scales.

        1 where kernels are not normalised.
        """
        return (
            normalisation.deviation(centred, self.channel_axes)
            if self._is_normalised(centred)
            else 1.0
        )

    @property
    def _levels(self) -> str:
        """What 2 bits stand for, where the kernel may have so few."""
        return self.config.two_bit_levels if 2 in self.config.candidate_bits else TWO_BIT_LEVELS[0]

    def _scale(self, kernel, limit=None) -> tf.Tensor:
        """The scales, given what is rounded.

        Learned ones change by their gradient up to `limit`, relatively and for a learning rate of
        1.
        """
        deviation = self.deviation(kernel)
        if self.config.scale == "learned":
            return deviation * scales.learned(
                self._base(kernel), tf.convert_to_tensor(self.log_gain.value), limit
            )
        return tf.stop_gradient(
            deviation
            * scales.RULES[self.config.scale](
                kernel / deviation, self.bits.value, self.scale_axes, self._levels
            )
        )

    def _base(self, kernel) -> tf.Tensor:
        """Where learned scales started, or would for this kernel if they have not."""
        base = tf.convert_to_tensor(self.scale_base.value)
        if self._is_started:
            return base
        return tf.cond(tf.reduce_all(base > 0.0), lambda: base, lambda: self._start(kernel))

    def _start(self, kernel) -> tf.Tensor:
        """Where learned scales start for what is rounded, at the present width."""
        normalised, kernel = self._is_normalised(kernel), kernel / self.deviation(kernel)
        # Zeros make means smaller, but no squared error.
        if (self.config.granularity, self.config.initial_scale) == ("tensor", "statistical"):
            kernel = scales.filled(kernel, self.channel_axes)
        # Of a kernel of zeros the weights that train will be about as large as any initializer's.
        a_channel = max(math.prod(kernel.shape) // max(math.prod(self._channels_shape), 1), 1)  # pyright: ignore[reportArgumentType, reportCallIssue]
        size = 1.0 if normalised else a_channel**-0.5
        return scales.initial(
            kernel,
            self.bits.value,
            self.scale_axes,
            self.config.initial_scale,
            size,
            normalised,
            self._levels,
        )

    def _is_normalised(self, kernel) -> bool:
        return self.config.normalise_kernels and normalisation.is_normalised(
            kernel.shape, self.channel_axes
        )
