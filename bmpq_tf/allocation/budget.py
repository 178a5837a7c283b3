"""Budgets as people say them, and as rows of the integer program (METHOD.md, "Budgets")."""

import dataclasses
import math
import numbers
import re
from collections.abc import Sequence
from typing import Any

FLOAT_BITS = 32
_UNITS = {"b": 1, "bytes": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_FORMS = "'10x' (compression), '2.5 bits' (average per weight), '120 kB' or '1.2 MB' (parameter bits over 8), or a number (compression)"


class InfeasibleBudgetError(ValueError):
    """No assignment of the candidate widths meets the budget."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What the allocation needs to know of one kernel.

    Attributes:
        path: the kernel's variable path, its name everywhere.
        weights: how many weights it has.
        candidates: the widths it may have, ascending; `(32,)` for one that stays float.
        pinned: its one width is a decision, not a choice.
        kept: its one width is what it has, because no gradients reach it to choose another by.
        channels: how many scales a file has for it.
        macs: multiply-accumulates for one example, where known.
        activation_bits: the width of what the kernel is multiplied with; 32 for float.
    """

    path: str
    weights: int
    candidates: tuple[int, ...]
    pinned: bool = False
    kept: bool = False
    channels: int = 1
    macs: int | None = None
    activation_bits: int = FLOAT_BITS


@dataclasses.dataclass(frozen=True)
class Limit:
    """One row of the program: `sum of coefficients[l][b] * x[l, b] <= bound`."""

    name: str
    coefficients: tuple[tuple[int, ...], ...]
    bound: int


@dataclasses.dataclass(frozen=True)
class Budget:
    """One or several hard limits; all that are given hold at once.

    Attributes:
        compression: how many times fewer parameter bits than float32, over every kernel of the model.
        average_bits: parameter bits per weight.
        weight_bytes: parameter bits over 8.
        stored_bytes: bytes of the kernels in a file of the smallest kind (`optimize_for="size"`): 2, 4 or 8 bits a weight and 12 bytes a scale.
        bit_operations: `sum of MACs * weight bits * activation bits` for one example.

    Raises:
        ValueError: nothing is given, or something that is not a positive finite number.
    """

    compression: float | None = None
    average_bits: float | None = None
    weight_bytes: float | None = None
    stored_bytes: float | None = None
    bit_operations: float | None = None

    def __post_init__(self):
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if getattr(self, field.name) is not None}
        if not given:
            raise ValueError(f"A Budget needs at least one limit, such as Budget(compression=10). Received: {self}.")
        for name, value in given.items():
            if not _is_number(value) or not math.isfinite(value) or value <= 0:
                raise ValueError(f"A budget must be a positive number. Received: {name}={value!r}. Say {_FORMS}.")
            object.__setattr__(self, name, float(value))

    @classmethod
    def parse(cls, budget: "str | float | Budget | dict[str, float]") -> "Budget":
        """Reads a budget as people say it.

        Raises:
            ValueError: it cannot be read, or is zero or negative.
        """
        if isinstance(budget, Budget):
            return budget
        if isinstance(budget, dict):
            known = [field.name for field in dataclasses.fields(cls)]
            if unknown := sorted(set(budget) - set(known)):
                raise ValueError(f"Unknown limits in the budget: {', '.join(unknown)}. Received: budget={budget!r}. Known: {', '.join(known)}.")
            return cls(**budget)
        if _is_number(budget):
            text, unit, value = budget, "x", float(budget)
        else:
            match = re.fullmatch(r"\s*([-+]?\d+\.?\d*(?:e[-+]?\d+)?)\s*([a-z]*)\s*", str(budget).lower())
            if not isinstance(budget, str) or not match:
                raise ValueError(f"Cannot read the budget. Received: budget={budget!r}. Say {_FORMS}.")
            text, value, unit = budget, float(match[1]), match[2] or "x"
        if not math.isfinite(value) or value <= 0:
            raise ValueError(f"A budget must be positive. Received: budget={text!r}. Say {_FORMS}.")
        if unit == "x":
            return cls(compression=value)
        if unit in ("bit", "bits"):
            return cls(average_bits=value)
        if unit in _UNITS:
            return cls(weight_bytes=value * _UNITS[unit])
        raise ValueError(f"Unknown unit {unit!r} in the budget. Received: budget={budget!r}. Say {_FORMS}.")

    def to_dict(self) -> dict[str, float]:
        """Returns the limits that are given, as plain data that `parse` reads."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}

    def __str__(self) -> str:
        words = {
            "compression": "{:g}x",
            "average_bits": "{:g} bits",
            "weight_bytes": "{:g} B",
            "stored_bytes": "{:g} B stored",
            "bit_operations": "{:g} bit operations",
        }
        return " and ".join(words[key].format(value) for key, value in self.to_dict().items())

    def bits(self, kernels: Sequence[Kernel]) -> int | None:
        """Returns the tightest limit on parameter bits, or `None` if none is given."""
        total = sum(kernel.weights for kernel in kernels)
        limits = []
        if self.compression is not None:
            limits.append(FLOAT_BITS * total / self.compression)
        if self.average_bits is not None:
            limits.append(self.average_bits * total)
        if self.weight_bytes is not None:
            limits.append(8 * self.weight_bytes)
        # A product that should be whole may come out a hair below it.
        return math.floor(min(limits) * (1 + 1e-12)) if limits else None

    def limits(self, kernels: Sequence[Kernel]) -> list[Limit]:
        """Returns the budget as rows of the integer program over these kernels.

        Raises:
            ValueError: bit operations are limited and some kernel's MACs are not known.
        """
        rows = []
        if (bound := self.bits(kernels)) is not None:
            rows.append(Limit("parameter bits", _table(kernels, lambda kernel, bits: kernel.weights * bits), bound))
        if self.stored_bytes is not None:
            rows.append(Limit("stored bytes", _table(kernels, stored_bytes), math.floor(self.stored_bytes)))
        if self.bit_operations is not None:
            unknown = [kernel.path for kernel in kernels if kernel.macs is None]
            if unknown:
                raise ValueError(f"Bit operations cannot be limited, because the MACs of {unknown} are not known. Received: budget={self}.")
            table = _table(kernels, lambda kernel, bits: kernel.macs * bits * kernel.activation_bits)
            rows.append(Limit("bit operations", table, math.floor(self.bit_operations)))
        return rows

    def check(self, kernels: Sequence[Kernel], said: Any = None) -> None:
        """Raises `InfeasibleBudgetError` if the narrowest candidates do not meet each limit, naming who holds it up."""
        for limit in self.limits(kernels):
            smallest = sum(min(row) for row in limit.coefficients)
            if smallest <= limit.bound:
                continue
            raise InfeasibleBudgetError(
                f"The budget cannot be met. Received: budget={said if said is not None else str(self)!r}, which allows {limit.bound:,} "
                f"{limit.name}. The smallest this model reaches is {_smallest(kernels, limit, smallest)}{_holding_up(kernels, limit)}."
            )


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def parameter_bits(kernels: Sequence[Kernel], widths: dict[str, int]) -> int:
    """Returns `sum n_l * b_l` over every kernel; those without a width in `widths` count as their only candidate."""
    return sum(kernel.weights * widths.get(kernel.path, kernel.candidates[-1]) for kernel in kernels)


def container_bits(bits: int) -> int:
    """Returns the width of the narrowest LiteRT type that holds `bits`: 2, 4, 8 or 32."""
    return next(size for size in (2, 4, 8, FLOAT_BITS) if bits <= size)


def stored_bytes(kernel: Kernel, bits: int) -> int:
    """Returns the bytes that LiteRT stores for a kernel: its packed weights, and a scale and a zero point for each channel."""
    container = container_bits(bits)
    return -(-kernel.weights * container // 8) + (0 if container == FLOAT_BITS else 12 * kernel.channels)


def _table(kernels, cost) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(cost(kernel, bits) for bits in kernel.candidates) for kernel in kernels)


def _smallest(kernels, limit: Limit, smallest: int) -> str:
    if limit.name != "parameter bits":
        return f"{smallest:,} {limit.name}"
    total = sum(kernel.weights for kernel in kernels)
    # Each rounded so that the figure named can be asked for.
    compression = math.floor(FLOAT_BITS * total / smallest * 100) / 100
    return f"{compression:g}x ({-(-smallest // 8):,} bytes, {math.ceil(smallest / total * 1000) / 1000:g} bits)"


def _holding_up(kernels, limit: Limit) -> str:
    floats = [kernel for kernel in kernels if kernel.candidates == (FLOAT_BITS,)]
    pinned = [kernel for kernel in kernels if kernel.pinned]
    kept = [kernel for kernel in kernels if kernel.kept]
    narrowest = min((kernel.candidates[0] for kernel in kernels if not (kernel.pinned or kernel.kept or kernel in floats)), default=None)
    reasons, ways = [], []
    if pinned:
        reasons.append(f"{_names(pinned)} {'is' if len(pinned) == 1 else 'are'} pinned at {_widths(pinned)} bits")
        ways.append("unpin " + ("it" if len(pinned) == 1 else "them"))
    if floats:
        reasons.append(f"{_names(floats)} stay{'s' if len(floats) == 1 else ''} float at 32 bits")
        ways.append("quantize " + ("it" if len(floats) == 1 else "them"))
    if kept:
        reasons.append(
            f"{_names(kept)} keep{'s' if len(kept) == 1 else ''} {_widths(kept)} bits, as no gradients reach {'it' if len(kept) == 1 else 'them'}"
        )
        ways.append("let " + ("it" if len(kept) == 1 else "them") + " train")
    # What is pinned may hold up a budget that the candidates would not meet without it either.
    unmet = narrowest is not None and limit.name == "parameter bits" and narrowest * sum(kernel.weights for kernel in kernels) > limit.bound
    if narrowest is not None and (not reasons or (unmet and narrowest > container_bits(1))):
        reasons.append(f"{narrowest} bits is the narrowest candidate")
        ways.append("allow narrower candidates")
    return f", because {' and '.join(reasons)}; {', '.join(ways)} or ask for less" if reasons else ""


def _names(kernels) -> str:
    largest = sorted(kernels, key=lambda kernel: -kernel.weights)
    shown = [f"'{kernel.path}'" for kernel in largest[:4]]
    rest = len(largest) - len(shown)
    if rest:
        shown.append(f"{rest} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _widths(kernels) -> str:
    return ", ".join(str(bits) for bits in sorted({kernel.candidates[0] for kernel in kernels}))
