"""Kernels of mean zero and standard deviation one, per channel, before they are quantized (after Li
et al., APoT, ICLR 2020).

With `m` and `s` the mean and the deviation of a channel, `w_q = s·Q((w - m) / s) = S·q` with
`S = s·S_n` and `q = clip(round((w - m) / S), lo, hi)`: quantizing `w - m` with scales that have `s`
in them, so integers and scales are exported as ever. APoT leaves the last factor `s` to the
BatchNorm behind; kept, it also serves layers that have none.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from bmpq_tf.arithmetic.scales import reduced_axes

# Of a variance; a channel of equal weights is all zeros, whatever its scale.
_SMALLEST_VARIANCE = 1e-24


def is_normalised(shape: Sequence[int], channel_axes: Sequence[int]) -> bool:
    """Whether a kernel has channels of two weights or more; one weight alone is its own mean."""
    return math.prod(shape[axis] for axis in reduced_axes(len(shape), channel_axes)) > 1


def centred(weights, channel_axes: Sequence[int]) -> tf.Tensor:
    """Returns the weights without their channel's mean, float32 of their shape, with gradients.

    Kernels of `is_normalised` only.
    """
    axes = reduced_axes(len(weights.shape), channel_axes)
    return weights - tf.reduce_mean(weights, axes, keepdims=True)


def deviation(centred_weights, channel_axes: Sequence[int]) -> tf.Tensor:
    """Returns the standard deviation of each channel, positive float32 that broadcasts against the
    kernel, with gradients.
    """
    axes = reduced_axes(len(centred_weights.shape), channel_axes)
    variance = tf.reduce_mean(tf.square(centred_weights), axes, keepdims=True)
    return tf.sqrt(tf.maximum(variance, _SMALLEST_VARIANCE))
