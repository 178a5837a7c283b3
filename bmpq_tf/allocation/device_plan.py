"""What a file for a microcontroller takes of flash and RAM at each width (METHOD.md, "Flash and
RAM").
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from bmpq_tf.allocation.kernel import Kernel, Limit

# What an arena's size is rounded up to. TFLM aligns what it allocates to 16 bytes; a figure for a
# data sheet need not be finer than this.
ARENA_STEP = 64


@dataclasses.dataclass(frozen=True)
class KernelForm:
    """One kernel at one width.

    Attributes:
        flash: bytes that it takes, without a table that kernels share.
        shared_table: the index width of the table that it shares, or `None`.
        planned: bytes of the arena for what is computed, where it alone has this form.
        persistent: bytes that this form adds to what the runtime keeps.
        planning: bytes that it adds to what the runtime plans its memory in, at most.
    """

    flash: int
    shared_table: int | None
    planned: int
    persistent: int
    planning: int = 0


@dataclasses.dataclass(frozen=True)
class DevicePlan:
    """What the untrained model takes of a device; all in bytes.

    Attributes:
        flash: of all but the kernels.
        planned: of the arena with int8 kernels, for what is computed.
        persistent: likewise, for what the runtime keeps of tensors and operators.
        busiest: the operator at which most activations are alive, in words.
        tables: of a shared table, by the width of its indices.
        forms: by kernel path and width.
    """

    flash: int
    planned: int
    persistent: int
    busiest: str
    tables: Mapping[int, int]
    forms: Mapping[str, Mapping[int, KernelForm]]

    def flash_bytes(self, bits: Mapping[str, int]) -> int:
        """Returns the size of the file with these widths, at most."""
        forms = self._forms(bits)
        shared = {form.shared_table for form in forms if form.shared_table is not None}
        return (
            self.flash
            + sum(form.flash for form in forms)
            + sum(self.tables[width] for width in shared)
        )

    def arena_bytes(self, bits: Mapping[str, int]) -> int:
        """Returns the size of the arena with these widths, at most."""
        forms = self._forms(bits)
        planning = self.planned + sum(form.planning for form in forms)
        planned = max([planning, *(form.planned for form in forms)])
        persistent = self.persistent + sum(form.persistent for form in forms)
        return -(-(planned + persistent) // ARENA_STEP) * ARENA_STEP

    def _forms(self, bits: Mapping[str, int]) -> list[KernelForm]:
        return [self.forms[path][width] for path, width in bits.items() if path in self.forms]

    def table_sets(self, kernels: Sequence[Kernel]) -> Iterator[frozenset[int]]:
        """Yields every set of shared tables that the candidates could need, the smallest first."""
        needed = sorted(
            {
                form.shared_table
                for kernel in kernels
                for form in self._candidates(kernel)
                if form is not None and form.shared_table is not None
            }
        )
        for count in range(len(needed) + 1):
            yield from map(frozenset, itertools.combinations(needed, count))

    def flash_limit(self, kernels: Sequence[Kernel], bound: float, tables: frozenset[int]) -> Limit:
        """Returns the row of flash.

        Args:
            kernels: every kernel of the model.
            bound: in bytes.
            tables: which shared tables the file may hold; forms with another are out of the
                question.
        """
        held = sum(self.tables[width] for width in tables)
        room = int(bound) - self.flash - held

        def cost(form: KernelForm | None) -> int:
            if form is None:
                return 0
            if form.shared_table is None or form.shared_table in tables:
                return form.flash
            # More than the room, and never less than it takes: the least is told to people.
            return max(form.flash + self.tables[form.shared_table], room + 1)

        rows = tuple(tuple(cost(form) for form in self._candidates(kernel)) for kernel in kernels)
        return Limit("bytes of flash", rows, room, beside=self.flash + held)

    def ram_limits(self, kernels: Sequence[Kernel], bound: float) -> list[Limit]:
        """Returns the rows of RAM: one for the activations alone, or for planning, and one for each
        kernel that is unpacked beside them.
        """
        room = int(bound) // ARENA_STEP * ARENA_STEP - self.persistent - self.planned
        beside = self.persistent + self.planned
        owners: list[Kernel | None] = [None, *kernels]
        limits = []
        for owner in owners:
            rows = tuple(
                tuple(
                    self._ram(form, owner is None, kernel is owner)
                    for form in self._candidates(kernel)
                )
                for kernel in kernels
            )
            if owner is not None and not any(rows[kernels.index(owner)]):
                continue
            where = f"at {self.busiest}" if owner is None else f"where '{owner.path}' is unpacked"
            limits.append(Limit(f"bytes of RAM {where}", rows, room, beside=beside))
        return limits

    def _ram(self, form: KernelForm | None, plans: bool, is_unpacked: bool) -> int:
        """What a form adds while the runtime plans, or where its own kernel is unpacked or not."""
        if form is None:
            return 0
        unpacked = max(0, form.planned - self.planned) if is_unpacked else 0
        return form.persistent + unpacked + form.planning * plans

    def _candidates(self, kernel: Kernel) -> list[KernelForm | None]:
        forms = self.forms.get(kernel.path, {})
        return [forms.get(bits) for bits in kernel.candidates]
