"""What each width would cost each kernel.

The bit gradients of training turned into estimates of the loss increase.

Definitions: METHOD.md, "Bit gradients and sensitivity" and "Allocation". After BMPQ; the formulas
are our own.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bmpq_tf.arguments import check_known
from bmpq_tf.arithmetic import quantizers, scales

OBJECTIVES = ("first_order", "squared", "joint")
# Sensitivities are told at this width, whatever widths a kernel may have, so that they compare.
REFERENCE_BITS = 2


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What training measured of one kernel, and the kernel itself.

    Attributes:
        path: the kernel's variable path.
        weights: the float kernel, float32.
        gradient_abs: per output channel the mean of `|g|` in a mini-batch, broadcastable to the
            kernel.
        gradient_square: likewise of `g^2`.
        weight_gradient_abs: likewise of `|g|`, but of every weight by itself; `None` where that was
            not tracked.
        candidates: the widths that the kernel may have, ascending.
        two_bit_levels: what 2 bits stand for, as `QuantizationConfig` has it.
        enbg: the mean over mini-batches of the normalised bit gradient, at the width that the
            kernel then had.
        channel_axes: axes that share nothing; empty for one scale per tensor.
        rule: the stateless scale rule that serves every width.
        deviation: of each channel where kernels are normalised, else 1: the rule goes by
            `weights / deviation`, and scales have it as a factor.

    Example:
        >>> def by_spread(measured):
        ...     return {m.path: [m.weights.std() / 2**b for b in m.candidates] for m in measured}
        >>> bmpq_tf.allocate_bits(model, "8x", by_spread).bits
        {'conv/kernel': 4, 'head/kernel': 4}
    """

    path: str
    weights: np.ndarray
    gradient_abs: np.ndarray
    gradient_square: np.ndarray
    enbg: float
    channel_axes: tuple[int, ...]
    rule: str = "statistical"
    deviation: np.ndarray | float = 1.0
    weight_gradient_abs: np.ndarray | None = None
    candidates: tuple[int, ...] = ()
    two_bit_levels: str = "twos_complement"


def estimate_costs(
    measured: Measurement, widths: Sequence[int], objective: str = "first_order"
) -> list[float]:
    """Estimates the loss increase of a kernel at each width, `Omega_l(b)`.

    Args:
        measured: the kernel and its gradients.
        widths: ascending widths in bits.
        objective: `"first_order"`, `sum_c g_c sum_p |Q_b(w_p) - w_p|` with `g_c` the mean `|g|`;
            `"squared"`, `sum_c (g^2)_c sum_p (Q_b(w_p) - w_p)^2`, the empirical-Fisher reading of
            the same gradients; or `"joint"`, `sum_p |g|_p |Q_b(w_p) - w_p|` with `|g|_p` the mean
            `|g|` of one weight, which first order factorises.

    Returns:
        A float for each width, non-increasing in the width (a running maximum from the widest
        down).

    Raises:
        ValueError: the objective is unknown, or joint where single weights were not tracked.

    Example:
        >>> weights, once = np.array([[-0.9, 0.1], [0.4, 0.6]], "float32"), np.ones((1, 1))
        >>> measured = bmpq_tf.Measurement("kernel", weights, once, once, enbg=0.0, channel_axes=())
        >>> [round(cost, 2) for cost in bmpq_tf.estimate_costs(measured, (2, 4, 8))]
        [0.6, 0.1, 0.01]
    """
    weights = tf.convert_to_tensor(measured.weights, tf.float32)
    factor = _factor(measured, objective)
    values = []
    for bits in widths:
        error = _error(measured, weights, bits)
        error = tf.square(error) if objective == "squared" else tf.abs(error)
        # Summed over what shares a factor first, in float64: a kernel can have millions of terms.
        axes = [axis for axis, size in enumerate(np.shape(factor)) if size == 1]
        by_factor = tf.reduce_sum(error, axes, keepdims=True).numpy().astype(np.float64)
        values.append(float(np.sum(by_factor * factor)))
    return np.maximum.accumulate(values[::-1])[::-1].tolist()


def _error(measured: Measurement, weights: tf.Tensor, bits: int) -> tf.Tensor:
    """What rounding to a width changes; at 0 bits all of the weights."""
    if not bits:
        return -weights
    scale = measured.deviation * scales.RULES[measured.rule](
        weights / measured.deviation, bits, measured.channel_axes, measured.two_bit_levels
    )
    return quantizers.quantization_error(weights, scale, bits, measured.two_bit_levels)


def _factor(measured: Measurement, objective: str) -> np.ndarray:
    check_known("objective", objective, OBJECTIVES)
    if objective != "joint":
        return measured.gradient_square if objective == "squared" else measured.gradient_abs
    if measured.weight_gradient_abs is None:
        raise ValueError(
            "The gradients of single weights were not tracked. Received: objective='joint' for "
            f"'{measured.path}'. "
            'Quantize the model with config=QuantizationConfig(track_sensitivity="joint").'
        )
    return measured.weight_gradient_abs


def weight_costs(measured: Measurement, bits: int, objective: str = "first_order") -> np.ndarray:
    """Estimates the loss increase of a kernel at a width for each of its weights.

    Args:
        measured: the kernel and its gradients.
        bits: the width; 0 is for weights that are dropped, whose error is all of them.
        objective: as `estimate_costs` takes it.

    Returns:
        Float64 of the kernel's shape. Its sum is the cost of the kernel at that width alone:
        `estimate_costs` also makes costs non-increasing over widths.
    """
    weights = tf.convert_to_tensor(measured.weights, tf.float32)
    error = np.asarray(_error(measured, weights, bits), np.float64)
    return _factor(measured, objective) * (
        np.square(error) if objective == "squared" else np.abs(error)
    )


def told_sensitivity(measured: Measurement, objective: str = "first_order") -> float:
    """The figure told for a kernel.

    Its estimated loss increase at 2 bits, which its present width does not colour.
    """
    return estimate_costs(measured, [REFERENCE_BITS], objective)[0]
