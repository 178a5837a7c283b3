"""The levels that integers take, as two's complement has them, or odd ones alone."""

import numpy as np

# Five bits' levels. Ethos-U codes up to 32 of any size as their places in a table; more would cost
# it the bits that their size takes.
_WIDEST = 5


def step_between(integers: np.ndarray) -> int:
    """Returns how far each level is from the next: 2 where all are odd, 1 otherwise."""
    return 2 if (integers % 2 != 0).all() else 1


def lowest_level(bits: int, step: int) -> int:
    """Returns the lowest level of a width: two's complement, or as far below zero as above it."""
    return -(2 ** (bits - 1)) if step == 1 else -step * (2**bits - 1) // 2


def factor_in_int8(integers: np.ndarray) -> int:
    """Returns by what integers may be multiplied so that all levels of the narrowest width that
    holds them are in int8; 1 where they have more than 5 bits.
    """
    step = step_between(integers)
    low, high = int(integers.min(initial=0)), int(integers.max(initial=0))
    for bits in range(1, _WIDEST + 1):
        start = lowest_level(bits, step)
        if start <= low and high < start + step * 2**bits:
            return 127 // -start
    return 1


def factor_in_int4(integers: np.ndarray) -> int:
    """Returns by what integers may be multiplied and stay in int4."""
    low, high = int(integers.min(initial=0)), int(integers.max(initial=0))
    return max(1, min(8 // max(1, -low), 7 // max(1, high)))
