"""Budgets in words: forms and units."""

import math
import re

_UNITS = {
    "b": 1,
    "bytes": 1,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
FORMS = (
    "'10x' (compression), '2.5 bits' (average per weight), '120 kB' or '1.2 MB' (parameter "
    "bits over 8), '64 kB flash, 48 kB ram' (a microcontroller's), or a number (compression)"
)
# What may follow a size in bytes.
KINDS = {
    "": "weight_bytes",
    "stored": "stored_bytes",
    "flash": "flash",
    "ram": "ram",
    "npu flash": "npu_flash",
}


def limit_of(part: str, budget) -> tuple[str, float]:
    """Reads one limit: the name of its field, and its value."""
    match = re.fullmatch(r"\s*([-+]?\d+\.?\d*(?:e[-+]?\d+)?)\s*([a-z]*)\s*([a-z ]*?)\s*", str(part))
    if not match:
        raise ValueError(f"Cannot read the budget. Received: budget={budget!r}. Say {FORMS}.")
    value, unit, kind = float(match[1]), match[2] or "x", match[3]
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"A budget must be positive. Received: budget={budget!r}. Say {FORMS}.")
    if unit == "x" and not kind:
        return "compression", value
    if unit in ("bit", "bits") and kind in ("", "operations"):
        return ("bit_operations" if kind else "average_bits"), value
    if unit in _UNITS and kind in KINDS:
        return KINDS[kind], value * _UNITS[unit]
    raise ValueError(
        f"Unknown unit {' '.join(filter(None, (unit, kind)))!r} in the budget. Received: "
        f"budget={budget!r}. Say {FORMS}."
    )


def bytes_of(text: str, name: str) -> float:
    """Reads the value of a field in bytes."""
    field, value = limit_of(text.lower(), text)
    if field not in ("weight_bytes", name):
        raise ValueError(
            f"A size in bytes is asked for. Received: {name}={text!r}. Say '64 kB', for example."
        )
    return value
