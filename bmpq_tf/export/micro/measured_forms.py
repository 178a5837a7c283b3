"""What each form of each kernel takes of a microcontroller, measured: files of one int8 model with
some kernels in other forms, and TFLM's arenas for them.
"""

from collections.abc import Mapping

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

    def form(
        self, constants: Mapping[str, bool], bits: int, base: Arena, symmetric: bool
    ) -> KernelForm:
        """What one kernel of the model, which may lie in several tensors, takes at a width, of
        symmetric levels or two's complement.

        Signs may turn or not, which decides between forms, so it is the most of both.
        """
        cases = [self._case(constants, bits, turned, symmetric) for turned in (True, False)]
        arenas = [
            self.arena({name: form for name, form in case.items() if form.form != "int8"})
            for case in cases
        ]
        worst, plain = cases
        shared = [form for form in worst.values() if form.shares_table]
        flash = max(
            sum(aligned(form.bytes - form.shares_table * _table(form)) for form in worst.values()),
            sum(aligned(form.bytes - (form in shared) * _table(form)) for form in plain.values()),
        )
        return KernelForm(
            flash,
            shared[0].bits if shared else None,
            max(map(computed, arenas)),
            max(arena.persistent for arena in arenas) - base.persistent,
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


def _serialised(model) -> bytes:
    from bmpq_tf._compat import tflite_micro

    return tflite_micro.aligned(flatbuffer.serialised(model))


def computed(arena: Arena) -> int:
    """What is not kept, in bytes."""
    return arena.bytes - arena.persistent


def _table(form: Packed) -> int:
    return TABLE_BYTES + 2**form.bits
