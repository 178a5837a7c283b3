"""The activation quantizer and its gradients.

PACT where values start at zero, an affine range elsewhere (METHOD.md, "Activations").

A range is its width, the clip `alpha`, and an integer zero point `z`: the `2^a - 1` steps
`step = alpha / (2^a - 1)` reach from `-z * step` to `(2^a - 1 - z) * step`, and zero is always on
the grid. `z = 0` is PACT (Choi et al. 2018); the general form is how LiteRT stores activations, and
how LSQ+ trains them (Bhalgat et al. 2020).

At 16 bits LiteRT's grids are symmetric, with as many steps below zero as above: `2^a - 2` in all
and `z` half of them, whether values are negative or not.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

# Shares of the largest range that a first range is chosen from.
_SHARES = 16
_SMALLEST_CLIP = 1e-12
# A little less than 1: a value at an end of the range belongs to what is clipped.
_INSIDE = 1.0 - 2.0**-20
# From so many bits on, what rounds to an end of the range counts as clipped: 1/510 of it at each.
_FINE = 8


def steps(bits: int) -> int:
    """Returns the number of steps, `2^a - 1`; one less at 16 bits."""
    return 2**bits - 1 - is_symmetric(bits)


def is_symmetric(bits: int) -> bool:
    """Whether a range reaches as far below zero as above."""
    return bits == 16


def ends(clip, zero_point, bits: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns `(step, low, high)`, float32 scalars.

    The ends are multiples of the step, as every value is.
    """
    step = clip / steps(bits)
    return step, -zero_point * step, (steps(bits) - zero_point) * step


def quantize(
    values, clip, zero_point, bits: int, rounding: Callable[[tf.Tensor], tf.Tensor] = tf.round
) -> tf.Tensor:
    """Returns the integers `round(clip(x, low, high) / step)`, float32 of the values' shape, from
    `-z` to `2^a - 1 - z`.

    Clipping comes first and the division is a product with the reciprocal, as in the exported file:
    both runtimes then round the same numbers.
    """
    step, low, high = ends(clip, zero_point, bits)
    clipped = tf.minimum(tf.maximum(values, low), high)
    return rounding(clipped * (1.0 / step))


def fake_quantize(
    values,
    clip,
    zero_point,
    bits: int,
    rounding: Callable[[tf.Tensor], tf.Tensor] | None = tf.round,
    on_gradient: Callable[[], None] | None = None,
) -> tf.Tensor:
    """Clips, rounds and scales back, with gradients to the values and to the clip.

    Args:
        values: float32 of any shape.
        clip: `alpha`, a positive float32 scalar.
        zero_point: `z`, an integer from 0 to `2^a - 1` as a float32 scalar; 0 is PACT, and so is
            `None`, for which fewer operations do.
        bits: the width `a`.
        rounding: what rounds, as in `quantize`; `None` for TensorFlow's own fake quantization,
            which passes over the values once instead of four times, and rounds halves up.
        on_gradient: called while the gradient is built.

    Returns:
        float32 of the values' shape. With `g` the gradient of the result, a value inside the range
        gets `g` and others 0; the clip gets PACT's gradient, `sum of g` where `x >= alpha`. Where
        `z > 0`, each end moves by its own share of the clip: `sum of g * high / alpha` where
        `x >= high`, and `sum of g * low / alpha` where `x <= low`. Where `z = 0`, zero is inside.
        Where it is `None`, from 8 bits on, what rounds to an end counts as at it.
    """

    @tf.custom_gradient
    def apply(values, clip, *zero_points):
        (shift,) = zero_points or (0.0,)
        low, high = ends(clip, shift, bits)[1:] if zero_points else (0.0, clip)
        if rounding is None:
            rounded = tf.quantization.fake_quant_with_min_max_vars(
                values, low, high, bits, is_symmetric(bits)
            )
        else:
            step = ends(clip, shift, bits)[0]
            rounded = quantize(values, clip, shift, bits, rounding) * step
        # The next layer keeps what is rounded anyway, and nobody else what was not.
        is_fine = bits >= _FINE and not zero_points
        seen = rounded if is_fine else values

        def grad(upstream):
            if on_gradient is not None:
                on_gradient()
            # One operation for the mask and both sums. It would count the ends as inside.
            to_values, to_low, to_high = tf.quantization.fake_quant_with_min_max_vars_gradient(
                upstream, seen, _INSIDE * low, _INSIDE * high, bits, is_symmetric(bits)
            )
            if is_fine:
                # Rounded, what lies below zero is zero.
                return tf.raw_ops.ReluGrad(gradients=to_values, features=seen), to_high
            if not zero_points:
                return to_values, to_high
            return to_values, (to_low * low + to_high * high) / clip, None

        return rounded, grad

    return apply(values, clip, *(() if zero_point is None else (zero_point,)))  # pyright: ignore[reportReturnType]


def learned_clip(
    log_clip, base, share: float | tf.Tensor = 1.0, limit: float | None = None
) -> tf.Tensor:
    """Returns `alpha = min(base * exp(log_clip), limit)`, a positive float32 scalar.

    Args:
        log_clip: float32 scalar, which is trained.
        base: `alpha` at the start, a float32 scalar; it gets no gradient.
        share: the share of its gradient that `log_clip` gets.
        limit: the largest `alpha`. One that is there gets a gradient only if a step against it
            leads back below.
    """

    # One gradient for the whole chain: a model has as many chains as quantizers.
    @tf.custom_gradient
    def apply(log_clip, base):
        # A ReLU with max_value=0 has no range, and a learned one may have shrunk to nothing.
        clip = tf.maximum(base * tf.exp(log_clip), _SMALLEST_CLIP)

        def grad(upstream):
            to_log_clip = upstream * (clip * share)
            if limit is not None:
                to_log_clip = tf.where((clip >= limit) & (upstream < 0), 0.0, to_log_clip)
            return to_log_clip, None

        if limit is None:
            return tf.identity(clip), grad
        return tf.minimum(clip, max(limit, _SMALLEST_CLIP)), grad

    return apply(log_clip, base)  # pyright: ignore[reportReturnType]


def range_of(kept, values, bits: int, signed: bool, limit: float | None = None) -> tf.Tensor:
    """Returns the range that was kept, or, where none was, the first one.

    Args:
        kept: `[clip, zero_point]`, float32; a clip of 0 for none.
        values: float32 of any shape, which a first range is of.
        bits, signed, limit: as `first_range` takes them.
    """
    return _range_function(bits, signed, limit)(kept, tf.reshape(tf.stop_gradient(values), [-1]))


@functools.cache
def _range_function(bits: int, signed: bool, limit: float | None):
    """One function for all quantizers that a step holds, whatever the number of values.

    Not inlined, and with the choice inside: the choice and the search in each place took more
    memory than the activations.
    """

    def chosen(kept, values):
        first = functools.partial(first_range, values, bits, signed, limit)
        return tf.cond(tf.unstack(kept)[0] > 0, lambda: kept, first)

    return tf.function(
        chosen,
        input_signature=[tf.TensorSpec([2], tf.float32), tf.TensorSpec([None], tf.float32)],
        experimental_attributes={"_noinline": True},
        autograph=False,
    )


def first_range(values, bits: int, signed: bool, limit: float | None = None) -> tf.Tensor:
    """Chooses the range that a batch of values is rounded in with the smallest mean square error.

    Tried are sixteen shares of the range that holds every value and zero; at 2 bits a good range
    cuts off the tails.

    Args:
        values: float32 of any shape.
        bits: the width `a`.
        signed: whether the range may reach below zero, where it is not symmetric anyway. If not, it
            is of what a ReLU makes of the values.
        limit: the largest value.

    Returns:
        `[clip, zero_point]`, float32; zeros if all values are zero or any is not finite.
    """
    signed = signed or is_symmetric(bits)
    found = tf.math.is_finite(tf.reduce_sum(values))
    if not signed:
        values = tf.maximum(values, 0.0)
    if limit is not None:
        values = tf.minimum(values, limit)
    high = tf.maximum(tf.reduce_max(values), 0.0)
    low = tf.minimum(tf.reduce_min(values), 0.0) if signed else tf.zeros_like(high)
    if is_symmetric(bits):
        high = tf.maximum(high, -low)
        low = -high
    span = high - low
    found &= span > _SMALLEST_CLIP
    span = tf.where(found, span, 1.0)
    zero_point = tf.round(tf.abs(low) / span * steps(bits))

    def error(share):
        step = ends(share * span, zero_point, bits)[0]
        return tf.reduce_mean(
            tf.square(quantize(values, share * span, zero_point, bits) * step - values)
        )

    shares = tf.range(1.0, _SHARES + 1.0) / _SHARES
    errors = tf.map_fn(error, shares)
    # Of equal errors the widest range.
    best = tf.reverse(shares, [0])[tf.argmin(tf.reverse(errors, [0]))]
    return tf.where(found, tf.stack([best * span, zero_point]), 0.0)
