"""Rules that give a kernel its scale, one for each output channel or one for the tensor.

All of them return a positive float32 tensor that broadcasts against the kernel: the kernel's shape
with every axis that is not a channel axis reduced to 1. `levels` is of `quantizers.TWO_BIT_LEVELS`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from bmpq_tf.arithmetic.quantizers import level_range, quantization_error

GRANULARITIES = ("channel", "tensor")
# The smallest scale that stays a normal float32 after a division by it; keeps all-zero channels
# free of NaN.
SMALLEST_SCALE = 1e-12
# Of the search for the scale of the smallest error.
_OCTAVES, _STEPS_AN_OCTAVE = 5, 12


def reduced_axes(rank: int, channel_axes: Sequence[int]) -> list[int]:
    """Returns the axes of a kernel that share one scale: all but the channel axes.

    Empty `channel_axes`: per tensor.
    """
    kept = {axis % rank for axis in channel_axes}
    return [axis for axis in range(rank) if axis not in kept]


def scale_shape(kernel_shape: Sequence[int], channel_axes: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of a kernel's scales.

    Its own, with every axis that is not a channel axis set to 1.
    """
    reduced = set(reduced_axes(len(kernel_shape), channel_axes))
    return tuple(1 if axis in reduced else size for axis, size in enumerate(kernel_shape))


def max_abs(
    weights, bits, channel_axes: Sequence[int], levels: str = "twos_complement"
) -> tf.Tensor:
    """The smallest scale that clips nothing: `max(max w / hi, -min w / |lo|)`.

    At 2 bits the symmetric `max |w|` would never use the level -2; this does where the negative
    side is at least 1.5 times as long as the positive one.
    """
    low, high = level_range(bits, levels)
    axes = reduced_axes(len(weights.shape), channel_axes)
    above = tf.reduce_max(weights, axes, keepdims=True) / high
    below = tf.reduce_min(weights, axes, keepdims=True) / low
    return tf.maximum(tf.maximum(above, below), SMALLEST_SCALE)


def statistical(
    weights, bits, channel_axes: Sequence[int], levels: str = "twos_complement"
) -> tf.Tensor:
    """`2 mean|w| / sqrt(hi)`, the initial value of LSQ (Esser et al. 2020), never wider than
    `max_abs`.

    At 8 bits the formula alone would span 22 mean absolute weights and leave most levels unused.
    """
    if 0 in weights.shape:
        # The mean of no weights is NaN; the maximum of none is the smallest scale.
        return max_abs(weights, bits, channel_axes, levels)
    _, high = level_range(bits, levels)
    axes = reduced_axes(len(weights.shape), channel_axes)
    spread = 2.0 * tf.reduce_mean(tf.abs(weights), axes, keepdims=True) / tf.sqrt(high)
    return tf.clip_by_value(spread, SMALLEST_SCALE, max_abs(weights, bits, channel_axes, levels))


def least_squares(
    weights, bits, channel_axes: Sequence[int], levels: str = "twos_complement"
) -> tf.Tensor:
    """The scale of the smallest `sum_p (Q_b(w_p) - w_p)^2`, among fractions of `max_abs` and
    `statistical`.

    The fractions are a twelfth of an octave apart, over five octaves: at 2 bits the best scale of
    normal weights is a third of `max_abs`.
    """
    widest = max_abs(weights, bits, channel_axes, levels)
    axes = reduced_axes(len(weights.shape), channel_axes)

    def error(scale):
        return tf.reduce_sum(
            tf.square(quantization_error(weights, scale, bits, levels)), axes, keepdims=True
        )

    best = statistical(weights, bits, channel_axes, levels)
    smallest = error(best)
    for step in range(_OCTAVES * _STEPS_AN_OCTAVE + 1):
        scale = tf.maximum(widest * 2.0 ** (-step / _STEPS_AN_OCTAVE), SMALLEST_SCALE)
        found = error(scale)
        best, smallest = tf.where(found < smallest, scale, best), tf.minimum(found, smallest)
    return best


def filled(weights, channel_axes: Sequence[int]) -> tf.Tensor:
    """Returns the weights with channels of zeros as large as the others are in the mean.

    A scale that all share is to serve both.

    A pruned channel, or one that starts at zero, would make the scale of the others the smaller.
    """
    sizes = tf.reduce_mean(
        tf.abs(weights), reduced_axes(len(weights.shape), channel_axes), keepdims=True
    )
    is_used = sizes > 0
    others = tf.math.divide_no_nan(
        tf.reduce_sum(sizes), tf.math.count_nonzero(is_used, dtype=sizes.dtype)
    )
    return tf.where(is_used, weights, others)


def initial(
    weights,
    bits,
    channel_axes: Sequence[int],
    rule: str = "statistical",
    size: float = 1.0,
    normalised: bool = False,
    levels: str = "twos_complement",
) -> tf.Tensor:
    """Where a learned scale starts.

    By a rule of `STARTS`, and for a channel of zeros the scale of its tensor.

    A learned scale does not follow the weights as the other rules do: at `SMALLEST_SCALE` a channel
    that starts at zero would clip its first step away and get no gradient ever after. A tensor of
    zeros starts as if its weights were `+-size`, and so does a channel of zeros where `normalised`
    says that channels will be of one size.
    """
    scale = STARTS[rule](weights, bits, channel_axes, levels)
    axes = reduced_axes(len(weights.shape), channel_axes)
    likely = statistical(tf.fill([1] * len(weights.shape), size), bits, (), levels)
    whole = statistical(weights, bits, (), levels)
    whole = likely if normalised else tf.where(whole > SMALLEST_SCALE, whole, likely)
    return tf.where(tf.reduce_any(weights != 0, axes, keepdims=True), scale, whole)


def learned(base, log_gain, limit: Callable[[], Any] | None = None) -> tf.Tensor:
    """`S = base * exp(log_gain)`.

    Positive whatever the optimizer does, and at `base` while `log_gain` is 0.

    In the log domain (as TQT, Jain et al. 2020) the gradient is `S * dL/dS`, which does not grow
    when a scale shrinks. Steps of LSQ's relative size, `dL/dS / S / sqrt(n * hi)`, ran to NaN
    within five steps of SGD at rate 0.1 behind BatchNorm (tried here, 8 bits, from scratch). Adam
    changes a scale by about its learning rate, relatively. Weight decay pulls towards `base`, not
    towards zero or one.

    Args:
        base: positive float32, where the scales started.
        log_gain: float32 of the same shape, which the optimizer moves.
        limit: called while the gradient is built, for the largest gradient that `log_gain` may get;
            values that are not finite pass, so that whoever looks for them finds them. Without it
            scales of depthwise kernels behind BatchNorm ran to infinity at 2 to 8 bits with SGD at
            rate 0.1; with it the steepest gradient that was cut was 14 (tried here, MobileNet on
            digits). Likely from channels whose integers are all zero: they have no variance, which
            BatchNorm divides by.
    """

    if limit is None:
        return tf.stop_gradient(base) * tf.exp(log_gain)

    @tf.custom_gradient
    def limited(log_gain):
        def grad(upstream):
            bound = limit()
            return tf.where(
                tf.math.is_finite(upstream), tf.clip_by_value(upstream, -bound, bound), upstream
            )

        return tf.identity(log_gain), grad

    return tf.stop_gradient(base) * tf.exp(limited(log_gain))


RULES: dict[str, Callable] = {"max_abs": max_abs, "statistical": statistical}
STARTS: dict[str, Callable] = {"statistical": statistical, "mse": least_squares}
