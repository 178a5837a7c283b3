"""Which types the runtimes turn into which, in models of one `QUANTIZE`, `DEQUANTIZE` or `CAST`."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from bmpq_research import tflite_builder
from bmpq_research.runtime_probe import probe
from bmpq_tf._compat.litert import schema
from bmpq_tf.export.micro import operators

RUNTIMES = (*probe.RUNTIMES, probe.TFLM)
COLUMNS = ("operator", "from", "to", *RUNTIMES)
_BUILTIN, _TYPE = schema.BuiltinOperator, schema.TensorType
_TYPES = {
    "bool": _TYPE.BOOL,
    "uint8": _TYPE.UINT8,
    "int8": _TYPE.INT8,
    "int16": _TYPE.INT16,
    "int32": _TYPE.INT32,
    "int64": _TYPE.INT64,
    "float32": _TYPE.FLOAT32,
}
# Those of whole numbers, and others that nothing is a multiple of.
_WHOLE = {"uint8": 0, "int8": -128, "int16": 0, "int32": 0}
_OTHER = {"uint8": (1.7, 10), "int8": (1.7, -100), "int16": (0.01, 0)}
_NAMES = {"QUANTIZE": "Quantize", "DEQUANTIZE": "Dequantize", "CAST": "Cast"}
CONVERSIONS = (
    *(("QUANTIZE", one, other) for one in (*_WHOLE, "float32") for other in _OTHER),
    *(("DEQUANTIZE", one, "float32") for one in _OTHER),
    *(("CAST", one, "int32") for one in ("bool", "uint8", "int8", "int16", "int64")),
)


@dataclasses.dataclass(frozen=True)
class Converted:
    """What one runtime did with one conversion.

    Attributes:
        operator, given, made, runtime: which.
        outcome: `"right"`: within one step; `"wrong"`, or `"refused"`: no kernel.
    """

    operator: str
    given: str
    made: str
    runtime: str
    outcome: str


def probe_all(runtimes: Iterable[str] | None = None) -> list[Converted]:
    """Runs every conversion in every runtime, TFLM where it is installed."""
    if runtimes is None:
        runtimes = RUNTIMES if operators.is_installed() else probe.RUNTIMES
    return [
        Converted(*conversion, one, _outcome(*conversion, one))
        for conversion in CONVERSIONS
        for one in runtimes
    ]


def _outcome(operator: str, given: str, made: str, one: str) -> str:
    low, high = {"bool": (0, 2), "uint8": (0, 256), "int8": (-128, 128)}.get(given, (-300, 300))
    values = np.random.default_rng(0).integers(low, high, (1, 256)).astype(given)
    grids = [
        (1.0, _WHOLE[given]) if given in _WHOLE and operator != "CAST" else None,
        _OTHER[made] if operator == "QUANTIZE" else None,
    ]
    content = _content(operator, (given, made), grids, values.shape)
    try:
        received = probe.run_with(content, one, [values])
    except (RuntimeError, ValueError):
        return "refused"
    expected = values.astype(np.float64) - (grids[0][1] if grids[0] else 0)
    if grids[1]:
        limits = np.iinfo(made)
        expected = np.round(expected / np.float32(grids[1][0])) + grids[1][1]
        expected = expected.clip(limits.min, limits.max)
    allowed = 1.0 if operator == "QUANTIZE" else 0.0
    return "right" if np.abs(received - expected).max() <= allowed else "wrong"


def _content(operator: str, types, grids, shape) -> bytes:
    file = tflite_builder.Builder()
    ends = [
        file.tensor(
            name,
            shape,
            _TYPES[one],
            grid=(np.float32([grid[0]]), np.int64([grid[1]]), 0) if grid else None,
        )
        for name, one, grid in zip(("given", "made"), types, grids, strict=True)
    ]
    fields = {"inDataType": _TYPES[types[0]], "outDataType": _TYPES[types[1]]}
    options = (_NAMES[operator], fields if operator == "CAST" else {})
    file.operator(getattr(_BUILTIN, operator), ends[:1], ends[1:], options)
    return file.content(ends[:1], ends[1:])


def rows(found: Iterable[Converted]) -> list[tuple[str, ...]]:
    """Returns the table's cells, a row for each conversion."""
    table: dict[tuple[str, str, str], list[str]] = {}
    for seen in found:
        outcome = "-" if seen.outcome == "refused" else seen.outcome
        table.setdefault((seen.operator, seen.given, seen.made), []).append(outcome)
    return [(*key, *cells) for key, cells in table.items()]
