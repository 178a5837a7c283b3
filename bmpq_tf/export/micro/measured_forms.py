"""What each form of each kernel takes of a microcontroller, measured: files of one int8 model with
some kernels in other forms, and TFLM's arenas for them.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping

from bmpq_tf.allocation.device_plan import KernelForm
from bmpq_tf.export.micro import minimal, packing
from bmpq_tf.export.micro.forms import (
    TABLE_BYTES,
    Packed,
    at_width,
    smallest,
    with_symmetric_levels,
)
from bmpq_tf.export.micro.runtime import Arena, least_arena
from bmpq_tf.export.tflite import cleanup, flatbuffer

# Of a buffer that starts at a multiple of 16 bytes.
_ALIGNMENT = 16
# What a kernel that is not int8 adds to what TFLM plans its memory in, and to what it keeps, for
# each operator that reads it: 88 and 8 bytes were measured.
_PLANNING, _KEPT = 96, 16
# Bytes of a constant that TFLM may look at before it runs: shapes, axes, the headers of tables.
_LARGEST_READ = 1024


def aligned(size: int) -> int:
    """Returns what a buffer of a size takes in a file."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class MeasuredForms:
    """Files of one int8 model with some kernels in other forms, and their arenas."""

    def __init__(self, content: bytes):
        self._content = content
        model = flatbuffer.parse(content)
        minimal.equal_scales_as_one(model)
        self.kernels = packing.kernels(model)
        self._arenas: dict[tuple, Arena] = {}

    def forms(
        self,
        constants: Mapping[str, Mapping[str, bool]],
        widths: Iterable[int],
        symmetric: Collection[str],
    ) -> dict[str, dict[int, KernelForm]]:
        """What each kernel of the model takes at each width.

        Args:
            constants: by kernel path, the tensors that it lies in, and whether folding may turn
                signs there.
            widths: in bits.
            symmetric: the kernels that have symmetric levels at 2 bits, not two's complement.
        """
        # Signs may turn or not, which decides between forms.
        cases = {
            (path, bits): [
                self._case(tensors, bits, turned, bits == 2 and path in symmetric)
                for turned in (True, False)
            ]
            for path, tensors in constants.items()
            for bits in widths
        }
        every = [case for both in cases.values() for case in both]
        shares = {kind: self._share(kind, every) for kind in ("int4", "decode")}
        found: dict[str, dict[int, KernelForm]] = {path: {} for path in constants}
        for (path, bits), both in cases.items():
            found[path][bits] = self._form(both, shares)
        return found

    def _share(self, kind: str, cases: list[dict[str, Packed]]) -> "_Share":
        """What each kernel in a form adds beside what it does alone.

        TFLM plans in memory of the arena, and needs more for each of them. Where they are few,
        activations may hide that, so the excess of all together is shared out among the operators
        that read them: it is convex in their number, so that any of them together need no more.
        Kernels that take more when unpacked would hide it too, and get what was measured elsewhere.
        """
        readers = {name: len(kernel.builtins) for name, kernel in self.kernels.items()}
        base = self.arena({})
        alone = {
            name: (form, self.arena({name: form}))
            for case in cases
            for name, form in case.items()
            if form.form == kind
        }
        small = {
            name: (form, arena)
            for name, (form, arena) in alone.items()
            if computed(arena) <= computed(base) + 2 * _PLANNING * readers[name]
        }
        if not small:
            return _Share(readers, frozenset(), 0, _KEPT)
        together = self.arena({name: form for name, (form, _) in small.items()})
        planning = max(0, computed(together) - computed(base))
        told = sum(arena.persistent - base.persistent for _, arena in small.values())
        kept = max(0, together.persistent - base.persistent - told)
        count = sum(readers[name] for name in small)
        each = [-(-total // count) for total in (planning, kept)]
        return _Share(readers, frozenset(small), *each)

    def int8_bytes(self) -> int:
        """The size of the file with all kernels in int8."""
        return len(_serialised(self._packed({})))

    def arena(self, forms: Mapping[str, Packed]) -> Arena:
        # The width of an index changes nothing.
        key = tuple(sorted((name, form.form) for name, form in forms.items()))
        if key not in self._arenas:
            model = self._packed(forms)
            # Memory is planned by sizes alone, so the weights themselves stay out of it.
            for buffer in model.buffers:
                if buffer.data is not None:
                    buffer.data = buffer.data[:_LARGEST_READ]
            self._arenas[key] = least_arena(_serialised(model), run=False)
        return self._arenas[key]

    def _packed(self, forms: Mapping[str, Packed]):
        model = flatbuffer.parse(self._content)
        minimal.equal_scales_as_one(model)
        # Indices of zero stand for those that are not known yet.
        packing.pack(model, forms, lambda indices, bits: bytes(-(-indices.size * bits // 8)))
        minimal.strip(model)
        cleanup.clean_up(model)
        return model

    def _form(self, cases: list[dict[str, Packed]], shares: Mapping[str, "_Share"]) -> KernelForm:
        """The most that one kernel, which may lie in several tensors, takes in two cases: with
        signs turned, and without.
        """
        worst, plain = cases
        narrow = [
            {name: form for name, form in case.items() if form.form != "int8"} for case in cases
        ]
        arenas = [self.arena(case) for case in narrow]
        added = [[shares[form.form].of(name) for name, form in case.items()] for case in narrow]
        persistent = self.arena({}).persistent
        shared = [form for form in worst.values() if form.shares_table]
        flash = max(
            sum(aligned(form.bytes - form.shares_table * _table(form)) for form in worst.values()),
            sum(aligned(form.bytes - (form in shared) * _table(form)) for form in plain.values()),
        )
        return KernelForm(
            flash,
            shared[0].bits if shared else None,
            max(map(computed, arenas)),
            max(
                arena.persistent - persistent + sum(kept for _, kept in one)
                for arena, one in zip(arenas, added, strict=True)
            ),
            max(sum(planning for planning, _ in one) for one in added),
        )

    def _case(self, constants, bits: int, turned: bool, symmetric: bool) -> dict[str, Packed]:
        return {
            name: smallest(
                with_symmetric_levels(self.kernels[name])
                if symmetric
                else at_width(self.kernels[name], bits, turned and may_turn)
            )
            for name, may_turn in constants.items()
        }


@dataclasses.dataclass(frozen=True)
class _Share:
    """What a kernel in some form adds to planning, and to what is kept beside what it does alone.

    Attributes:
        readers: how many operators read each tensor.
        small: the tensors that take no more when they are unpacked.
        planning, kept: bytes for each operator that reads one of these.
    """

    readers: Mapping[str, int]
    small: frozenset[str]
    planning: int
    kept: int

    def of(self, name: str) -> tuple[int, int]:
        each = (self.planning, self.kept) if name in self.small else (_PLANNING, _KEPT)
        return each[0] * self.readers[name], each[1] * self.readers[name]


def _serialised(model) -> bytes:
    from bmpq_tf._compat import tflite_micro

    return tflite_micro.aligned(flatbuffer.serialised(model))


def computed(arena: Arena) -> int:
    """What is not kept, in bytes."""
    return arena.bytes - arena.persistent


def _table(form: Packed) -> int:
    return TABLE_BYTES + 2**form.bits
