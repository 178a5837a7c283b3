"""The weight quantizer and its straight-through gradient (METHOD.md, "Weight quantizer")."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from bmpq_tf.arithmetic import sums

SMALLEST_BITS, LARGEST_BITS = 2, 8
# What 2 bits stand for: -2, -1, 0, 1; or -3, -1, 1, 3 half steps.
TWO_BIT_LEVELS = ("twos_complement", "symmetric")
# (lo, hi) by width: one look-up where arithmetic takes eight operations, for every kernel in every
# step.
_TWOS_COMPLEMENT = np.array(
    [(-min(2**bits // 2, 127), 2**bits // 2 - 1) for bits in range(LARGEST_BITS + 1)], np.float32
)
_SYMMETRIC = _TWOS_COMPLEMENT.copy()
_SYMMETRIC[2] = -1.5, 1.5
_RANGES: dict[str, np.ndarray] = dict(
    zip(TWO_BIT_LEVELS, (_TWOS_COMPLEMENT, _SYMMETRIC), strict=True)
)
# A few times what float32 rounds a ratio by, relative to the last level.
_ROUNDING = 1e-6
# By width, how far levels lie from whole steps.
_HALVES = np.array([0.0, 0.0, 0.5] + [0.0] * (LARGEST_BITS - 2), np.float32)


def level_range(bits, levels: str = "twos_complement") -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the lowest and the highest level in steps, `(lo, hi)`, float32 scalars.

    Args:
        bits: the width `N`, which may be a tensor.
        levels: of `TWO_BIT_LEVELS`. `lo = -2^(N-1)`, `hi = 2^(N-1) - 1`; at 8 bits the range is
            narrow (`lo = -hi`), as LiteRT asks of its weights; `"symmetric"` has -1.5 and 1.5 at 2
            bits.
    """
    low, high = tf.unstack(tf.gather(_RANGES[levels], _whole(bits)))
    return low, high


def _whole(bits) -> tf.Tensor:
    # An average of equal widths, as of a momentum encoder's weights, may lie just below one.
    return tf.cast(tf.round(tf.cast(bits, tf.float32)), tf.int32)


def rounded(steps, bits, levels: str = "twos_complement") -> tf.Tensor:
    """Rounds steps to the nearest levels, as if there were levels without end."""
    if levels == "twos_complement":
        return tf.round(steps)
    half = tf.gather(_HALVES, _whole(bits))
    return tf.round(steps - half) + half


def quantize(weights, scale, bits, levels: str = "twos_complement") -> tf.Tensor:
    """Returns the levels in steps, `round(clip(w / S, lo, hi))`, float32 of the weights' shape.

    They are whole, but at 2 bits and `"symmetric"`: -1.5, -0.5, 0.5, 1.5.
    """
    return rounded(tf.clip_by_value(weights / scale, *level_range(bits, levels)), bits, levels)


def quantization_error(weights, scale, bits, levels: str = "twos_complement") -> tf.Tensor:
    """Returns `Q_b(w) - w`, float32 of the weights' shape."""
    return quantize(weights, scale, bits, levels) * scale - weights


def fake_quantize(
    weights,
    scale,
    bits,
    on_gradient: Callable[[tf.Tensor], Sequence[tf.Tensor]] | None = None,
    levels: str = "twos_complement",
) -> tf.Tensor:
    """Quantizes and dequantizes, with gradients to the latent weights and to the scale.

    Args:
        weights: float32 kernel.
        scale: positive float32, of the kernel's rank: 1 along the axes that share a scale.
        bits: the width `N`, a scalar (a tensor, so that a change needs no new trace).
        on_gradient: called while the gradient is built, with `g = dL/dw_q`; where the layers
            accumulate sensitivities. Returns tensors that are to be ready before the gradient is
            used further.
        levels: of `TWO_BIT_LEVELS`.

    Returns:
        `S * q`, float32 of the kernel's shape. The weights get `g` inside the clipping range and 0
        outside; the scale gets LSQ's gradient, `sum g * (q - w/S)` inside and `sum g * q` outside,
        over the weights that share it (Esser et al. 2020,
        without their factor: `scales.learned` makes the step relative instead).
    """

    @tf.custom_gradient
    def apply(weights, scale):
        low, high = level_range(bits, levels)
        ratio = weights / scale
        # Limits are levels, so clipping first gives the same ones. ClipByValue is one pass over the
        # weights, tf.clip_by_value two.
        clipped = tf.raw_ops.ClipByValue(t=ratio, clip_value_min=low, clip_value_max=high)
        # A weight that sets the scale comes out a rounding error beyond the last level.
        inside = tf.abs(ratio - clipped) <= _ROUNDING * high
        quantized = rounded(clipped, bits, levels) * scale

        def grad(upstream):
            # Embedding's lookups send slices.
            upstream = tf.convert_to_tensor(upstream)
            upstream.set_shape(weights.shape)
            shared = [axis for axis, size in enumerate(scale.shape) if size == 1]
            # Each waits for the one before, so that one product of the kernel's size is in memory
            # at a time.
            with tf.control_dependencies(on_gradient(upstream) if on_gradient is not None else []):
                # Said in quantized values, which the layer keeps anyway: integers would be a
                # further copy.
                of_quantized = sums.by_channel(upstream * quantized, shared)
            with tf.control_dependencies([of_quantized]):
                # Zero outside whatever the gradient is, as a tf.where that needs no tensor of
                # zeros.
                to_weights = tf.math.multiply_no_nan(upstream, tf.cast(inside, tf.float32))
            of_weights = sums.by_channel(to_weights * weights, shared)
            return to_weights, tf.reshape(of_quantized - of_weights, scale.shape) / scale

        return quantized, grad

    return apply(weights, scale)  # pyright: ignore[reportReturnType]
