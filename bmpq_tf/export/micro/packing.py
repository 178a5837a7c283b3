"""Kernels at their own widths in a file for TFLM: int8, int4, or a table of levels with indices
into it, which the runtime's operator `DECODE` unpacks before each use (docs/METHOD.md).
"""

import copy
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.micro.operators import DECODED, NATIVE_INT4
from bmpq_tf.export.tflite import flatbuffer

_BUILTIN = schema.BuiltinOperator
_WIDEST_INDEX = 7
# What DECODE adds to a file beside indices and tables: an operator and two tensors, measured.
DECODE_BYTES = 112
# Of the header in front of the tables.
_HEADER_BYTES = 16


@dataclasses.dataclass(frozen=True)
class Packed:
    """How a kernel lies in the file.

    Attributes:
        form: `"int8"`, `"int4"` or `"decode"`.
        bits: of a weight, or of an index.
        tables: int8 `(channels or 1, 2^bits)`: the levels, for `"decode"`.
        axis: the channels', where each has a table of its own.
        bytes: that it takes, without what kernels share.
    """

    form: str
    bits: int
    tables: np.ndarray | None = None
    axis: int | None = None
    bytes: int = 0


def smallest(builtins: Sequence[int], integers: np.ndarray, scales: int, axis: int) -> Packed:
    """Returns the form that takes the fewest bytes of flash; of equal ones that with the least to
    do at run time.

    Args:
        builtins: the operators that read the kernel.
        integers: int8, as the int8 file holds them.
        scales: how many it has.
        axis: of the scales.
    """
    found = [Packed("int8", 8, bytes=integers.size)]
    low, high = int(integers.min(initial=0)), int(integers.max(initial=0))
    native = all(builtin in NATIVE_INT4 for builtin in builtins)
    # A scale for each channel is refused there at 4 bits.
    native &= scales == 1 or _BUILTIN.FULLY_CONNECTED not in builtins
    if native and low >= -8 and high < 8:
        found.append(Packed("int4", 4, bytes=-(-integers.size // 2)))
    if all(builtin in DECODED for builtin in builtins):
        found += _tables(integers, axis, len(builtins))
    return min(found, key=lambda one: one.bytes)


def _tables(integers: np.ndarray, axis: int, readers: int) -> list[Packed]:
    """One table for all channels, and one for each: where folding turned the signs of some, those
    together have one level more than a width holds.
    """
    found = []
    whole = _window(integers.min(initial=0), integers.max(initial=0))
    if whole is not None:
        low, bits = whole
        size = -(-integers.size * bits // 8) + DECODE_BYTES * readers
        found.append(Packed("decode", bits, _levels([low], bits), None, size))
    channels = np.moveaxis(integers, axis, 0).reshape(integers.shape[axis], -1)
    lows, highs = channels.min(1), channels.max(1)
    bits = max((_bits(int(high) - int(low)) for low, high in zip(lows, highs, strict=True)))
    fits = axis in (0, integers.ndim - 1) and bits <= _WIDEST_INDEX
    if fits and (whole is None or bits < whole[1]):
        # Indices count from a table's start, so that each channel may have its own.
        size = -(-integers.size * bits // 8) + DECODE_BYTES * readers
        size += len(channels) * 2**bits + _HEADER_BYTES
        found.append(Packed("decode", bits, _levels(lows, bits), axis, size))
    return found


def _window(low: int, high: int) -> tuple[int, int] | None:
    """The first level and the width of the table that holds these levels.

    As wide kernels as possible share one: it begins at the lowest level of its width.
    """
    bits = _bits(int(high) - int(low))
    if bits > _WIDEST_INDEX:
        return None
    start = -(2 ** (bits - 1))
    return (start if start <= low and high < -start else int(low)), bits


def _bits(span: int) -> int:
    return max(1, span.bit_length())


def _levels(lows, bits: int) -> np.ndarray:
    levels = np.asarray(lows, np.int64)[:, None] + np.arange(2**bits)
    return np.clip(levels, -128, 127).astype(np.int8)


def indices(integers: np.ndarray, packed: Packed) -> np.ndarray:
    """Returns each weight's place in its table."""
    assert packed.tables is not None
    starts = packed.tables[:, 0].astype(np.int64)
    if packed.axis is not None:
        starts = starts.reshape([-1 if a == packed.axis else 1 for a in range(integers.ndim)])
    return integers.astype(np.int64) - starts


def kernel_operands(model) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yields each constant int8 operand that an operator reads as weights, by its tensor, with the
    operators that read it and the place among their inputs.
    """
    subgraph = model.subgraphs[0]
    found: dict[int, list[tuple[int, int]]] = {}
    for position, operator in enumerate(subgraph.operators):
        for place, index in enumerate(operator.inputs):
            tensor = subgraph.tensors[index] if index >= 0 else None
            if (
                tensor is not None
                and tensor.type == flatbuffer.INT8
                and flatbuffer.constant(model, tensor) is not None
            ):
                found.setdefault(int(index), []).append((position, place))
    yield from found.items()


def pack(model) -> dict[str, Packed]:
    """Puts every kernel of an int8 file, changed in place, into its smallest form.

    Returns:
        The forms, by the names of the kernels' tensors.
    """
    subgraph = model.subgraphs[0]
    forms: dict[str, Packed] = {}
    shared: dict[bytes, int] = {}
    decodes: dict[int, list[tuple[int, int, int]]] = {}
    for index, readers in list(kernel_operands(model)):
        tensor = subgraph.tensors[index]
        integers = flatbuffer.constant(model, tensor)
        builtins = [
            flatbuffer.builtin_of(model, subgraph.operators[position]) for position, _ in readers
        ]
        axis = int(tensor.quantization.quantizedDimension or 0)
        form = smallest(builtins, integers, flatbuffer.scale_count(tensor), axis)
        forms[flatbuffer.tensor_name(tensor)] = form
        if form.form == "int4":
            tensor.type = schema.TensorType.INT4
            _set_content(model, tensor, flatbuffer.packed(integers, 4))
        if form.form != "decode":
            continue
        encoded, ancillary = _encoded(model, integers, form, shared)
        for number, (position, place) in enumerate(readers):
            decoded = index if number == 0 else _twin(subgraph, tensor)
            subgraph.operators[position].inputs[place] = decoded
            decodes.setdefault(position, []).append((encoded, ancillary, decoded))
        tensor.buffer = 0
    _insert(model, decodes)
    return forms


def _encoded(model, integers: np.ndarray, form: Packed, shared: dict) -> tuple[int, int]:
    """Adds the indices, and the tables where no kernel has the same; returns both tensors."""
    from bmpq_tf._compat import tflite_micro

    subgraph = model.subgraphs[0]
    content = tflite_micro.pack_indices(indices(integers, form), form.bits)
    encoded = _constant(model, subgraph, content)
    told = tflite_micro.ancillary_data(form.bits, form.tables, form.axis)
    if told not in shared:
        shared[told] = _constant(model, subgraph, told)
    return encoded, shared[told]


def _constant(model, subgraph, content: bytes) -> int:
    values = np.frombuffer(content, np.uint8)
    return flatbuffer.add_tensor(model, subgraph, "", values.shape, schema.TensorType.UINT8, values)


def _set_content(model, tensor, values: np.ndarray) -> None:
    buffer = schema.BufferT()
    buffer.data = values
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1


def _twin(subgraph, tensor) -> int:
    twin = copy.copy(tensor)
    twin.buffer = 0
    subgraph.tensors.append(twin)
    return len(subgraph.tensors) - 1


def _insert(model, decodes: dict[int, list[tuple[int, int, int]]]) -> None:
    """Puts one `DECODE` in front of each operator that reads decoded kernels: what it writes lives
    until the next operator only.
    """
    from bmpq_tf._compat import tflite_micro

    if not decodes:
        return
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = _BUILTIN.CUSTOM, 1
    code.deprecatedBuiltinCode, code.customCode = _BUILTIN.CUSTOM, tflite_micro.DECODE_NAME.encode()
    model.operatorCodes.append(code)
    subgraph = model.subgraphs[0]
    for position in sorted(decodes, reverse=True):
        operator = schema.OperatorT()
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs = [index for one in decodes[position] for index in one[:2]]
        operator.outputs = [decoded for *_, decoded in decodes[position]]
        subgraph.operators.insert(position, operator)
