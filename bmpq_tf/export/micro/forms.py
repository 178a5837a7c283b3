"""In which form a kernel lies in a file for TFLM: int8, int4, or a table of levels with indices
into it, which the runtime's operator `DECODE` unpacks before each use (docs/METHOD.md).
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.kernels.levels import lowest_level, step_between
from bmpq_tf.export.micro.operators import DECODED, NATIVE_INT4

_BUILTIN = schema.BuiltinOperator
_WIDEST_INDEX = 7
# What DECODE adds to a file beside indices and tables (an operator and two tensors), and what a
# table does beside its levels (a header of 16, a tensor, a buffer); measured, rounded up.
DECODE_BYTES = 112
TABLE_BYTES = 80


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A constant as the choice of its form sees it.

    Attributes:
        builtins: the operators that read it.
        count: how many weights.
        lows, highs: the lowest and the highest level in each channel, as they were trained.
        scales: how many.
        tables_by_channel: whether `DECODE` takes a table for each channel along its axis.
        beside_int8: whether it meets activations of 8 bits, not 16.
        step: from one level to the next: 2 where all are odd.
        factor: what the levels are multiplied with in the int8 file.
    """

    builtins: Sequence[int]
    count: int
    lows: np.ndarray
    highs: np.ndarray
    scales: int
    tables_by_channel: bool
    beside_int8: bool = True
    step: int = 1
    factor: int = 1


def kernel_of(
    integers: np.ndarray,
    axis: int,
    builtins: Sequence[int],
    scales: int,
    *,
    beside_int8: bool = True,
    factor: int = 1,
) -> Kernel:
    """Describes a kernel.

    Args:
        integers: as they were trained.
        axis: of the channels.
        builtins, scales, beside_int8, factor: as in `Kernel`.
    """
    channels = np.moveaxis(integers, axis, 0).reshape(integers.shape[axis], -1).astype(np.int64)
    return Kernel(
        builtins,
        integers.size,
        channels.min(1),
        channels.max(1),
        scales,
        axis in (0, integers.ndim - 1),
        beside_int8,
        step_between(integers),
        factor,
    )


@dataclasses.dataclass(frozen=True)
class Packed:
    """How a kernel lies in the file.

    Attributes:
        form: `"int8"`, `"int4"` or `"decode"`.
        bits: of a weight, or of an index.
        starts: the lowest level of each table, for `"decode"`: one, or one for each channel.
        step: from one level of a table to the next.
        bytes: that it takes, with what it needs beside the weights.
        factor: what the levels of a table are multiplied with.
    """

    form: str
    bits: int
    starts: tuple[int, ...] = ()
    step: int = 1
    bytes: int = 0
    factor: int = 1

    @property
    def shares_table(self) -> bool:
        """Whether kernels of the same width have the same table, which then lies there once."""
        return self.form == "decode" and self.starts == (lowest_level(self.bits, self.step),)


def smallest(kernel: Kernel, decodes: bool = True) -> Packed:
    """Returns the form that takes the fewest bytes of flash; of equal ones that with the least to
    do at run time.

    Args:
        kernel: with the levels that it has.
        decodes: whether it may be unpacked by `DECODE`, which takes RAM.
    """
    found = [Packed("int8", 8, bytes=kernel.count)]
    low, high = int(kernel.lows.min()), int(kernel.highs.max())
    native = kernel.beside_int8 and all(builtin in NATIVE_INT4 for builtin in kernel.builtins)
    # A scale for each channel is refused there at 4 bits.
    native &= kernel.scales == 1 or _BUILTIN.FULLY_CONNECTED not in kernel.builtins
    if native and kernel.factor * low >= -8 and kernel.factor * high < 8:
        found.append(Packed("int4", 4, bytes=-(-kernel.count // 2)))
    if decodes and all(builtin in DECODED for builtin in kernel.builtins):
        found += _decoded(kernel, low, high)
    return min(found, key=lambda one: one.bytes)


def _decoded(kernel: Kernel, low: int, high: int) -> Iterator[Packed]:
    """One table for all channels, and one for each: where folding turned the signs of some, those
    together have one level more than a width holds.
    """
    step = kernel.step
    bits = _index_bits((high - low) // step)
    if bits <= _WIDEST_INDEX:
        # As many kernels as possible share a table: it begins at the lowest level of its width.
        usual = lowest_level(bits, step)
        reaches = usual <= low and high < usual + step * 2**bits and (low - usual) % step == 0
        start = usual if reaches else low
        size = _decoded_bytes(kernel, bits, 1)
        yield Packed("decode", bits, (start,), step, size, kernel.factor)
    narrow = _index_bits(int((kernel.highs - kernel.lows).max()) // step)
    if narrow < bits and kernel.tables_by_channel:
        size = _decoded_bytes(kernel, narrow, len(kernel.lows))
        yield Packed("decode", narrow, tuple(map(int, kernel.lows)), step, size, kernel.factor)


def _decoded_bytes(kernel: Kernel, bits: int, tables: int) -> int:
    indices = -(-kernel.count * bits // 8)
    return indices + DECODE_BYTES * len(kernel.builtins) + TABLE_BYTES + tables * 2**bits


def _index_bits(span: int) -> int:
    return max(1, span.bit_length())


def tables(packed: Packed) -> np.ndarray:
    """Returns the levels behind each index, int8 `(tables, 2^bits)`."""
    starts = np.asarray(packed.starts, np.int64)[:, None]
    levels = starts + packed.step * np.arange(2**packed.bits)
    return np.clip(packed.factor * levels, -128, 127).astype(np.int8)


def decodes_at(kernel: Kernel, bits: int | None) -> bool:
    """Whether a kernel that was trained at a width is planned to be unpacked by `DECODE`.

    Trained integers may have fewer levels than their width, and those of kernels that stay float in
    training (`None`) have any; to unpack them would take RAM that no plan has counted.
    """
    return bits is not None and any(
        smallest(at_width(kernel, bits, turned)).form == "decode" for turned in (True, False)
    )


def with_symmetric_levels(kernel: Kernel) -> Kernel:
    """A kernel as it comes out of training at 2 bits of symmetric levels, whatever the signs."""
    highs = np.full_like(kernel.highs, 3)
    return dataclasses.replace(kernel, lows=-highs, highs=highs, step=2)


def at_width(kernel: Kernel, bits: int, turned: bool) -> Kernel:
    """A kernel as a plan sees it at a width; `turned`: with the signs of every other channel
    turned.
    """
    level = 2 ** (bits - 1)
    other = np.arange(len(kernel.lows)) % 2 * turned
    highs = np.minimum(level - 1 + other, 127)
    lows = np.maximum(other - level, -127)
    return dataclasses.replace(kernel, lows=lows, highs=highs, step=1, factor=1)
