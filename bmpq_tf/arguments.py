"""Arguments as people give them: names, and numbers of Python, NumPy and arrays of one element."""

import numbers
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np


def plain(value) -> Any:
    """Returns a NumPy scalar, or a scalar array or tensor, as Python's own number, string or truth
    value; all else as it is.
    """
    scalar = getattr(value, "shape", None) == () and hasattr(value, "dtype")
    return np.asarray(value).item() if scalar else value


def whole(value) -> int | None:
    """Returns a whole number as an int; `None` for all else, truth values and floats too."""
    value = plain(value)
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def real(value) -> float | None:
    """Returns a real number as a float; `None` for all else, truth values too."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    return float(value)


def check_known(name: str, value, known: Sequence) -> None:
    """Raises ValueError for an argument that is none of the known values."""
    if value not in known:
        raise ValueError(
            f"Unknown {name}. Received: {name}={value!r}. Known: {', '.join(map(str, known))}."
        )
