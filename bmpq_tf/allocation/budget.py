"""Budgets as people say them, and as rows of the integer program (METHOD.md, "Budgets")."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bmpq_tf.allocation.budget_words import FORMS, KINDS, bytes_of, limit_of
from bmpq_tf.allocation.device_plan import DevicePlan
from bmpq_tf.allocation.infeasibility import holding_up, smallest_reached
from bmpq_tf.allocation.kernel import FLOAT_BITS, Kernel, Limit, stored_bytes
from bmpq_tf.allocation.npu_flash import npu_flash_limit
from bmpq_tf.arguments import plain, real


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
            2, 4 or 8 bits a weight and 12 bytes for each output channel.
        bit_operations: `sum of MACs * weight bits * activation bits` for one example.
        flash: bytes of the file for a microcontroller (`optimize_for="micro"`).
        ram: bytes of the arena that it runs in, as TFLM finds it on a machine of 64-bit pointers.
        npu_flash: bytes of the weights in the flash of an Ethos-U55 or U65, as Vela encodes them,
            at most; what lies beside them is `VelaReport.beside_bytes`, whatever the widths.

    Sizes in bytes may be text: `Budget(flash="64 kB", ram="48 kB")`.

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
    flash: "float | str | None" = None
    ram: "float | str | None" = None
    npu_flash: "float | str | None" = None

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
            if name in KINDS.values() and isinstance(value, str):
                value = bytes_of(value, name)
            number = real(value)
            if number is None or not math.isfinite(number) or number <= 0:
                raise ValueError(
                    f"A budget must be a positive number. Received: {name}={value!r}. Say {FORMS}."
                )
            object.__setattr__(self, name, number)

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
        said = plain(budget)
        if real(said) is None and not isinstance(said, str):
            raise ValueError(f"Cannot read the budget. Received: budget={budget!r}. Say {FORMS}.")
        limits: dict[str, float] = {}
        words = said.lower() if isinstance(said, str) else f"{float(said)}"
        # A comma between digits is of a number, which is written with a point here.
        for part in re.split(r"(?<!\d),|,(?!\d)|\band\b", words):
            name, value = limit_of(part, budget)
            if name in limits:
                raise ValueError(
                    f"The budget limits the same twice. Received: budget={budget!r}. Say {FORMS}."
                )
            limits[name] = value
        return cls(**limits)

    def to_dict(self) -> dict[str, float]:
        """Returns the limits that are given, as plain data that `parse` reads."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}

    def __str__(self) -> str:
        words = {
            "compression": "{:.15g}x",
            "average_bits": "{:.15g} bits",
            "weight_bytes": "{:.15g} B",
            "stored_bytes": "{:.15g} B stored",
            "bit_operations": "{:.15g} bit operations",
            "flash": "{:.15g} B flash",
            "ram": "{:.15g} B ram",
            "npu_flash": "{:.15g} B npu flash",
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

    @property
    def needs_plan(self) -> bool:
        """Whether it limits what only a `DevicePlan` of the model tells."""
        return self.flash is not None or self.ram is not None

    def limits(
        self,
        kernels: Sequence[Kernel],
        plan: DevicePlan | None = None,
        tables: frozenset[int] = frozenset(),
    ) -> list[Limit]:
        """Returns the budget as rows of the integer program over these kernels.

        Args:
            kernels: every kernel of the model.
            plan: what a microcontroller's file takes; without it flash and RAM have no rows.
            tables: which shared tables that file may hold.

        Raises:
            ValueError: some kernel's MACs, or its form on an NPU, are not known, and limited.
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
        if self.npu_flash is not None:
            rows.append(npu_flash_limit(kernels, float(self.npu_flash)))
        if plan is not None and self.flash is not None:
            rows.append(plan.flash_limit(kernels, float(self.flash), tables))
        if plan is not None and self.ram is not None:
            rows += plan.ram_limits(kernels, float(self.ram))
        return rows

    def holds(
        self, kernels: Sequence[Kernel], bits: Mapping[str, int], plan: DevicePlan | None = None
    ) -> bool:
        """Whether these widths meet every limit.

        Args:
            kernels: every kernel of the model.
            bits: each one's width, by path.
            plan: what a microcontroller's file takes; without it flash and RAM are not judged.
        """
        present = [
            dataclasses.replace(kernel, candidates=(bits[kernel.path],)) for kernel in kernels
        ]
        if plan is not None:
            flash, arena = plan.flash_bytes(bits), plan.arena_bytes(bits)
            if self.flash is not None and flash > float(self.flash):
                return False
            if self.ram is not None and arena > float(self.ram):
                return False
        return all(
            sum(row[0] for row in limit.coefficients) <= limit.bound
            for limit in self.limits(present)
        )

    def check(self, kernels: Sequence[Kernel], said: Any = None) -> None:
        """Raises `InfeasibleBudgetError` if the narrowest candidates do not meet each limit, naming
        who holds it up; those of flash and RAM apart.
        """
        told = str(self) if said is None or isinstance(said, Budget) else said
        for limit in self.limits(kernels):
            smallest = sum(min(row) for row in limit.coefficients)
            if smallest <= limit.bound:
                continue
            raise InfeasibleBudgetError(
                "The budget cannot be met. Received: "
                f"budget={told!r}, which allows {limit.bound:,} "
                f"{limit.name}. The smallest this model reaches is "
                f"{smallest_reached(kernels, limit, smallest)}{holding_up(kernels, limit)}."
            )


def _table(kernels, cost) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(cost(kernel, bits) for bits in kernel.candidates) for kernel in kernels)
