"""Budgets as people say them, and as rows of the integer program (METHOD.md, "Budgets")."""

import dataclasses
import math
import numbers
import re
from collections.abc import Sequence
from typing import Any

from bmpq_tf.allocation.infeasibility import holding_up, smallest_reached
from bmpq_tf.allocation.kernel import FLOAT_BITS, Kernel, Limit, stored_bytes

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
_FORMS = (
    "'10x' (compression), '2.5 bits' (average per weight), '120 kB' or '1.2 MB' (parameter "
    "bits over 8), or a number (compression)"
)


class InfeasibleBudgetError(ValueError):
    """No assignment of the candidate widths meets the budget.

    Example:
        >>> try:
        ...     bmpq_tf.allocate_bits(model, "20x")
        ... except bmpq_tf.InfeasibleBudgetError as error:
        ...     print(error)
        The budget cannot be met. ... The smallest this model reaches is 16x (369 bytes, 2 bits)...
    """


@dataclasses.dataclass(frozen=True)
class Budget:
    """One or several hard limits; all that are given hold at once.

    Attributes:
        compression: how many times fewer parameter bits than float32, over every kernel of the
            model.
        average_bits: parameter bits per weight.
        weight_bytes: parameter bits over 8.
        stored_bytes: bytes of the kernels in a file of the smallest kind (`optimize_for="size"`):
            2, 4 or 8 bits a weight and 12 bytes a scale.
        bit_operations: `sum of MACs * weight bits * activation bits` for one example.

    Raises:
        ValueError: nothing is given, or something that is not a positive finite number.

    Example:
        >>> budget = bmpq_tf.Budget(compression=8, stored_bytes=1000)
        >>> print(budget)
        8x and 1000 B stored
        >>> bmpq_tf.allocate_bits(model, budget).status
        'optimal'
    """

    compression: float | None = None
    average_bits: float | None = None
    weight_bytes: float | None = None
    stored_bytes: float | None = None
    bit_operations: float | None = None

    def __post_init__(self):
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) is not None
        }
        if not given:
            raise ValueError(
                "A Budget needs at least one limit, such as Budget(compression=10). Received: "
                f"{self}."
            )
        for name, value in given.items():
            if not is_number(value) or not math.isfinite(value) or value <= 0:
                raise ValueError(
                    f"A budget must be a positive number. Received: {name}={value!r}. Say {_FORMS}."
                )
            object.__setattr__(self, name, float(value))

    @classmethod
    def parse(cls, budget: "str | float | Budget | dict[str, float]") -> "Budget":
        """Reads a budget as people say it.

        Raises:
            ValueError: it cannot be read, or is zero or negative.

        Example:
            >>> bmpq_tf.Budget.parse("120 kB").weight_bytes
            120000.0
        """
        if isinstance(budget, Budget):
            return budget
        if isinstance(budget, dict):
            known = [field.name for field in dataclasses.fields(cls)]
            if unknown := sorted(set(budget) - set(known)):
                raise ValueError(
                    f"Unknown limits in the budget: {', '.join(unknown)}. Received: "
                    f"budget={budget!r}. Known: {', '.join(known)}."
                )
            return cls(**budget)
        if is_number(budget):
            text, unit, value = budget, "x", float(budget)
        else:
            match = re.fullmatch(
                r"\s*([-+]?\d+\.?\d*(?:e[-+]?\d+)?)\s*([a-z]*)\s*", str(budget).lower()
            )
            if not isinstance(budget, str) or not match:
                raise ValueError(
                    f"Cannot read the budget. Received: budget={budget!r}. Say {_FORMS}."
                )
            text, value, unit = budget, float(match[1]), match[2] or "x"
        if not math.isfinite(value) or value <= 0:
            raise ValueError(f"A budget must be positive. Received: budget={text!r}. Say {_FORMS}.")
        if unit == "x":
            return cls(compression=value)
        if unit in ("bit", "bits"):
            return cls(average_bits=value)
        if unit in _UNITS:
            return cls(weight_bytes=value * _UNITS[unit])
        raise ValueError(
            f"Unknown unit {unit!r} in the budget. Received: budget={budget!r}. Say {_FORMS}."
        )

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
            rows.append(
                Limit(
                    "parameter bits",
                    _table(kernels, lambda kernel, bits: kernel.weights * bits),
                    bound,
                )
            )
        if self.stored_bytes is not None:
            rows.append(
                Limit("stored bytes", _table(kernels, stored_bytes), math.floor(self.stored_bytes))
            )
        if self.bit_operations is not None:
            unknown = [kernel.path for kernel in kernels if kernel.macs is None]
            if unknown:
                raise ValueError(
                    f"Bit operations cannot be limited, because the MACs of {unknown} are not "
                    f"known. Received: budget={self}."
                )
            table = _table(
                kernels, lambda kernel, bits: kernel.macs * bits * kernel.activation_bits
            )
            rows.append(Limit("bit operations", table, math.floor(self.bit_operations)))
        return rows

    def check(self, kernels: Sequence[Kernel], said: Any = None) -> None:
        """Raises `InfeasibleBudgetError` if the narrowest candidates do not meet each limit, naming
        who holds it up.
        """
        for limit in self.limits(kernels):
            smallest = sum(min(row) for row in limit.coefficients)
            if smallest <= limit.bound:
                continue
            raise InfeasibleBudgetError(
                "The budget cannot be met. Received: "
                f"budget={said if said is not None else str(self)!r}, which allows {limit.bound:,} "
                f"{limit.name}. The smallest this model reaches is "
                f"{smallest_reached(kernels, limit, smallest)}{holding_up(kernels, limit)}."
            )


def is_number(value) -> bool:
    """Whether something is a real number, and no truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _table(kernels, cost) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(cost(kernel, bits) for bits in kernel.candidates) for kernel in kernels)
