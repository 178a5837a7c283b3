"""Ranges of activations, and the grids that hold them."""

from collections.abc import Iterable

import numpy as np

from bmpq_tf._compat.litert_quantizer import qtyping, tensor_zp_scale_from_min_max

Range = tuple[float, float]


def joined(ranges: Iterable[Range]) -> Range:
    """Returns the smallest range that holds several."""
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def integer_grid(limits: Range, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scale and the zero point of an integer tensor that holds a range, as
    litert-quantizer chooses them: 0 at 16 bits."""
    low, high = (np.array([limit], np.float32) for limit in limits)
    zero_point, scale = tensor_zp_scale_from_min_max(
        low, high, bits, bits == 16, qtyping.QuantGranularity.TENSORWISE
    )
    return np.float32(scale).reshape(-1), np.int64(zero_point).reshape(-1)
