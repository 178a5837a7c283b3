"""Ranges of activations, and the int8 grids that hold them."""

from collections.abc import Iterable

import numpy as np

from bmpq_tf._compat.litert_quantizer import qtyping, tensor_zp_scale_from_min_max

Range = tuple[float, float]


def joined(ranges: Iterable[Range]) -> Range:
    """Returns the smallest range that holds several."""
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def int8_grid(limits: Range) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scale and the zero point of an int8 tensor that holds a range."""
    low, high = (np.array([limit], np.float32) for limit in limits)
    zero_point, scale = tensor_zp_scale_from_min_max(
        low, high, 8, False, qtyping.QuantGranularity.TENSORWISE
    )
    return np.float32(scale).reshape(-1), np.int64(zero_point).reshape(-1)
