"""What runtimes answer to models of one int8 operator without weights, beside NumPy."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from bmpq_research import tflite_builder
from bmpq_research.runtime_probe import probe
from bmpq_research.runtime_probe.int8_operators import OPERATORS, Int8Operator, Part

_BOUND = 1  # step of the output
RUNTIMES = (*probe.RUNTIMES, probe.TFLM)
COLUMNS = ("int8 operator", *RUNTIMES, "arm64")


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one runtime did with one model.

    Attributes:
        operator, runtime: which.
        outcome: `"right"`, within one step of the result's grid; `"wrong"`; `"refused"`.
        error: the largest difference from NumPy in steps, `None` where refused.
    """

    operator: str
    runtime: str
    outcome: str
    error: float | None


def build(operator: Int8Operator) -> tuple[bytes, list[np.ndarray], np.ndarray]:
    """Returns a model's bytes, its inputs, and the answer in steps of the result."""
    generator, file = np.random.default_rng(0), tflite_builder.Builder()
    values = [part.draw(generator) for part in operator.operands]
    tensors = [
        _tensor(file, f"operand_{number}", part, value if part.constant else None)
        for number, (part, value) in enumerate(zip(operator.operands, values, strict=True))
    ]
    fed = [
        index for index, part in zip(tensors, operator.operands, strict=True) if not part.constant
    ]
    result = _tensor(file, "result", operator.result)
    file.operator(operator.builtin, tensors, [result], operator.options)
    real = [part.real(value) for part, value in zip(operator.operands, values, strict=True)]
    with np.errstate(all="ignore"):
        expected = operator.result.steps(operator.answer(*real))
    given = [
        value for value, part in zip(values, operator.operands, strict=True) if not part.constant
    ]
    return file.content(fed, [result]), given, expected


def _tensor(file: tflite_builder.Builder, name: str, part: Part, values=None) -> int:
    grid = None
    if part.grid is not None:
        grid = (np.float32([part.grid[0]]), np.int64([part.grid[1]]), 0)
    return file.tensor(name, part.shape, part.kind, values, grid=grid)


def judge(operator: Int8Operator, runtime: str) -> Seen:
    """Runs one case in one runtime and compares it with NumPy."""
    content, given, expected = build(operator)
    try:
        received = probe.run_with(content, runtime, given)
    except (RuntimeError, ValueError):
        return Seen(operator.name, runtime, "refused", None)
    error = float(np.abs(received - expected).max())
    return Seen(operator.name, runtime, "right" if error <= _BOUND else "wrong", error)


def probe_all(
    runtimes: Iterable[str] = RUNTIMES, operators: Iterable[str] | None = None
) -> list[Seen]:
    """Runs every case in every runtime."""
    return [
        judge(operator, runtime)
        for runtime in runtimes
        for operator in OPERATORS
        if operators is None or operator.name in operators
    ]


def rows(found: Iterable[Seen]) -> list[tuple[str, ...]]:
    """Returns the table's cells, a row for each operator.

    The last column tells what an ARM processor does otherwise than LiteRT here, and is left out
    where none was asked.
    """
    table: dict[str, dict[str, str]] = {}
    for seen in found:
        outcome = "-" if seen.outcome == "refused" else seen.outcome
        table.setdefault(seen.operator, {})[seen.runtime] = outcome
    return [
        (
            name,
            *(cells[runtime] for runtime in RUNTIMES if runtime in cells),
            *_on_arm(cells),
        )
        for name, cells in table.items()
    ]


def _on_arm(cells: dict[str, str]) -> tuple[str, ...]:
    asked = [runtime for runtime in probe.ARM_RUNTIMES if runtime in cells]
    if not asked:
        return ()
    pairs = zip(probe.RUNTIMES[:2], probe.ARM_RUNTIMES, strict=True)
    others = [f"{theirs}: {cells[theirs]}" for own, theirs in pairs if cells[own] != cells[theirs]]
    return ("; ".join(others) or "same",)
