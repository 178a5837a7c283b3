"""The two's-complement weight quantizer and its straight-through gradient (METHOD.md, "Weight quantizer")."""

from collections.abc import Callable

import tensorflow as tf

from bmpq_tf.arithmetic import sums

SMALLEST_BITS, LARGEST_BITS = 2, 8


def integer_range(bits) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns `(lo, hi)`, float32 scalars, for a width that may be a tensor.

    `lo = -2^(N-1)`, `hi = 2^(N-1) - 1`; at 8 bits the range is narrow (`lo = -hi`), as LiteRT asks of its weights.
    """
    levels = tf.pow(2.0, tf.cast(bits, tf.float32) - 1.0)
    return -tf.minimum(levels, 2.0 ** (LARGEST_BITS - 1) - 1.0), levels - 1.0


def quantize(weights, scale, bits) -> tf.Tensor:
    """Returns the integers `clip(round(w / S), lo, hi)` as float32, of the weights' shape."""
    low, high = integer_range(bits)
    return tf.clip_by_value(tf.round(weights / scale), low, high)


def quantization_error(weights, scale, bits) -> tf.Tensor:
    """Returns `Q_b(w) - w`, float32 of the weights' shape."""
    return quantize(weights, scale, bits) * scale - weights


def fake_quantize(weights, scale, bits, on_gradient: Callable[[tf.Tensor], None] | None = None) -> tf.Tensor:
    """Quantizes and dequantizes, with gradients to the latent weights and to the scale.

    Args:
        weights: float32 kernel.
        scale: positive float32, broadcastable to the kernel.
        bits: the width `N`, a scalar (a tensor, so that a change needs no new trace).
        on_gradient: called while the gradient is built, with `g = dL/dw_q`; where the layers accumulate sensitivities.

    Returns:
        `S * q`, float32 of the kernel's shape. The weights get `g` inside the clipping range and 0 outside; the scale gets
        LSQ's gradient, `sum g * (q - w/S)` inside and `sum g * q` outside, over the weights that share it (Esser et al. 2020,
        without their factor: `scales.learned` makes the step relative instead).
    """

    @tf.custom_gradient
    def apply(weights, scale):
        low, high = integer_range(bits)
        # Limits are whole, so clipping first gives the same integers. ClipByValue is one pass over the weights, tf.clip_by_value two.
        clipped = tf.raw_ops.ClipByValue(t=weights / scale, clip_value_min=low, clip_value_max=high)
        quantized = tf.round(clipped) * scale

        def grad(upstream):
            # Embedding's lookups send slices.
            upstream = tf.convert_to_tensor(upstream)
            upstream.set_shape(weights.shape)
            if on_gradient is not None:
                on_gradient(upstream)
            # Said in the weights and their quantized values, which the layer keeps anyway: integers would be a further copy of each.
            shared = [axis for axis, size in enumerate(scale.shape) if size == 1]
            inside = _between(weights, low * scale, high * scale, shared)
            # Zero outside whatever the gradient is, as a tf.where that needs no tensor of zeros.
            to_weights = tf.math.multiply_no_nan(upstream, tf.cast(inside, tf.float32))
            # Two sums, so that only one product is in memory at a time.
            return to_weights, (sums.channel_sum(upstream * quantized, shared) - sums.channel_sum(to_weights * weights, shared)) / scale

        return quantized, grad

    return apply(weights, scale)


def _between(weights, low, high, shared) -> tf.Tensor:
    """Whether `low <= w <= high`, as a matrix where that can be: broadcasts over one axis are faster than over several."""
    channels = sums.columns(weights.shape, shared)
    if channels is None:
        return tf.logical_and(weights >= low, weights <= high)
    matrix, low, high = (tf.reshape(value, [-1, channels]) for value in (weights, low, high))
    return tf.reshape(tf.logical_and(matrix >= low, matrix <= high), weights.shape)
