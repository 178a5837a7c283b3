"""Integers that a model casts to floats, such as the pixels of an image: an integer file reads them
as they are.

In the float model a `CAST` makes floats of them. Here it becomes a `QUANTIZE` from the grid of the
whole numbers, which LiteRT and TFLM compute in integers (docs/runtime_matrix.md). While
litert-quantizer works, each result of such a `CAST` stands as an input of the model.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.tflite import editing, flatbuffer

_BUILTIN, _TYPE = schema.BuiltinOperator, schema.TensorType
# What QUANTIZE reads, and what a CAST brings to int32 first.
_QUANTIZED = (_TYPE.UINT8, _TYPE.INT8, _TYPE.INT16, _TYPE.INT32)
# Into int16 not every runtime reads bytes.
_WIDE = (_TYPE.INT16, _TYPE.INT32)
_CAST = (_TYPE.BOOL, _TYPE.INT64, _TYPE.UINT16, _TYPE.UINT32)
_NOT_IN_TFLM = {
    _TYPE.UINT8: "uint8",
    _TYPE.INT64: "int64",
    _TYPE.UINT16: "uint16",
    _TYPE.UINT32: "uint32",
}
_WHOLE_NUMBERS = (np.array([1.0], np.float32), np.array([0], np.int64), 0)


@dataclasses.dataclass(frozen=True)
class Door:
    """A `CAST` from integers to floats.

    Attributes:
        operator: the operator.
        source, result: the tensors of integers and of floats.
    """

    operator: object
    source: int
    result: int


def doors(model) -> list[Door]:
    """Returns the casts of a parsed model, from integers that are no constants to floats."""
    subgraph, found = model.subgraphs[0], []
    for operator in subgraph.operators:
        if flatbuffer.builtin_of(model, operator) == _BUILTIN.CAST:
            source, result = operator.inputs[0], operator.outputs[0]
            given, made = subgraph.tensors[source], subgraph.tensors[result]
            if (
                given.type in (*_QUANTIZED, *_CAST)
                and made.type == flatbuffer.FLOAT32
                and flatbuffer.constant(model, given) is None
                and result not in subgraph.outputs
            ):
                found.append(Door(operator, source, result))
    return found


@contextlib.contextmanager
def opened(model) -> Iterator[list[Door]]:
    """Takes the casts out of a model for a while, so that their results are inputs of it."""
    found, subgraph = doors(model), model.subgraphs[0]
    inputs, operators = subgraph.inputs, subgraph.operators
    casts = {id(door.operator) for door in found}
    subgraph.operators = [one for one in operators if id(one) not in casts]
    subgraph.inputs = [*inputs, *(door.result for door in found)]
    try:
        yield found
    finally:
        subgraph.inputs, subgraph.operators = inputs, operators


def connect(model, found: Sequence[Door], io_dtype: str, bits: int, is_micro: bool = False) -> None:
    """Has an integer file read the integers themselves, in place of the casts' results.

    Args:
        model: the parsed integer file; its tensors have the numbers of the float model's.
        found: what `opened` gave.
        io_dtype: of inputs and outputs. `"float32"` leaves inputs of integers as they are;
            otherwise those of another type that only a cast reads become int8 or int16, with the
            zero point as their shift.
        bits: the width of activations, 8 or 16.
        is_micro: whether TFLM will run it.
    """
    kept = {"int8": _TYPE.INT8, "uint8": _TYPE.UINT8, "int16": _TYPE.INT16}.get(io_dtype)
    wide = bits == 16
    subgraph = model.subgraphs[0]
    results = {door.result for door in found}
    subgraph.inputs = [index for index in subgraph.inputs if index not in results]
    for door in found:
        is_input = door.source in subgraph.inputs
        alone = is_input and not flatbuffer.consumers(subgraph, door.source)
        alone = alone and sum(other.source == door.source for other in found) == 1
        stays = kept is None or subgraph.tensors[door.source].type == kept
        if alone and not stays and subgraph.tensors[door.result].type != flatbuffer.FLOAT32:
            replace_end(model, "inputs", door.source, _as_int8(model, subgraph, door))
            continue
        source = _readable(model, subgraph, door.source, alone, wide, is_micro)
        _read(model, subgraph, door, source)


def _as_int8(model, subgraph, door: Door) -> int:
    """The input of int8 that takes the place of another: bytes less 128, whatever the grid that is
    read, and else that grid.
    """
    source, result = subgraph.tensors[door.source], subgraph.tensors[door.result]
    grid = result.quantization
    is_byte = source.type == _TYPE.UINT8 and result.type == flatbuffer.INT8
    if not is_byte or (float(grid.scale[0]), int(grid.zeroPoint[0])) == (1.0, -128):
        return door.result
    given = _byte_as_int8(model, subgraph, source)
    _quantize(model, subgraph, given, door.result)
    return given


def _byte_as_int8(model, subgraph, source) -> int:
    grid = (np.array([1.0], np.float32), np.array([-128], np.int64), 0)
    return editing.add_like(model, subgraph, source, "_int8", flatbuffer.INT8, grid)


def _shifted(model, subgraph, source: int) -> int:
    """A byte as int8, which TFLM reads into int16."""
    shifted = _byte_as_int8(model, subgraph, subgraph.tensors[source])
    _quantize(model, subgraph, source, shifted)
    return shifted


def activation_types(model) -> set[int]:
    """Returns the types that activations of a parsed integer file have: what lies on a grid, which
    integers do not that the model reads as they are.
    """
    readers = (_BUILTIN.DEQUANTIZE, _BUILTIN.QUANTIZE)
    subgraph = model.subgraphs[0]
    results = [
        subgraph.tensors[operator.outputs[0]]
        for operator in subgraph.operators
        if flatbuffer.builtin_of(model, operator) not in readers
    ]
    return {tensor.type for tensor in results if flatbuffer.scale_count(tensor)}


def _readable(model, subgraph, source: int, alone: bool, wide: bool, is_micro: bool) -> int:
    """A tensor of the same whole numbers that QUANTIZE reads."""
    tensor = subgraph.tensors[source]
    by_way_of_int8 = wide and is_micro and tensor.type == _TYPE.UINT8
    read = _WIDE if wide and not by_way_of_int8 else _QUANTIZED
    # A grid changes what other operators do with narrow integers, but not what they do with int32.
    if tensor.type == _TYPE.INT32 or (alone and tensor.type in read):
        tensor.quantization = editing.quantization(*_WHOLE_NUMBERS)
        return _shifted(model, subgraph, source) if by_way_of_int8 else source
    whole = editing.add_like(model, subgraph, tensor, "_int32", _TYPE.INT32, _WHOLE_NUMBERS)
    options = ("Cast", {"inDataType": tensor.type, "outDataType": _TYPE.INT32})
    cast = editing.new_operator(model, _BUILTIN.CAST, [source], [whole], options)
    _insert(subgraph, source, cast)
    return whole


def _read(model, subgraph, door: Door, source: int) -> None:
    """Leads a cast's readers to the integers; those that want floats keep the cast."""
    if subgraph.tensors[door.result].type != flatbuffer.FLOAT32:
        _quantize(model, subgraph, source, door.result)
        return
    for position in flatbuffer.consumers(subgraph, door.result):
        reader = subgraph.operators[position]
        if flatbuffer.builtin_of(model, reader) == _BUILTIN.QUANTIZE:
            reader.inputs = [source]
    if flatbuffer.consumers(subgraph, door.result):
        types = {"inDataType": subgraph.tensors[source].type, "outDataType": flatbuffer.FLOAT32}
        cast = editing.new_operator(model, _BUILTIN.CAST, [source], [door.result], ("Cast", types))
        _insert(subgraph, source, cast)


def _quantize(model, subgraph, source: int, result: int) -> None:
    _insert(subgraph, source, editing.quantize(model, source, result))


def _insert(subgraph, source: int, operator) -> None:
    """Puts an operator behind the one that computes what it reads."""
    made = [number for number, other in enumerate(subgraph.operators) if source in other.outputs]
    subgraph.operators.insert(made[0] + 1 if made else 0, operator)


def casts_beyond_tflm(model) -> list[str]:
    """Returns the types that a file casts and TFLM does not."""
    subgraph = model.subgraphs[0]
    types = {
        subgraph.tensors[operator.inputs[0]].type
        for operator in subgraph.operators
        if flatbuffer.builtin_of(model, operator) == _BUILTIN.CAST
    }
    return sorted(_NOT_IN_TFLM[kind] for kind in types & set(_NOT_IN_TFLM))


def replace_end(model, kind: str, old: int, new: int) -> None:
    """Puts one tensor in another's place among a model's `"inputs"` or `"outputs"`."""
    subgraph = model.subgraphs[0]
    indices = [new if index == old else index for index in getattr(subgraph, kind)]
    setattr(subgraph, kind, indices)
    for signature in model.signatureDefs or ():
        for entry in getattr(signature, kind):
            if entry.tensorIndex == old:
                entry.tensorIndex = new


def as_bytes(model) -> None:
    """Turns a file's int8 inputs and outputs into uint8: the same grid, 128 higher."""
    subgraph = model.subgraphs[0]
    for kind in ("inputs", "outputs"):
        for index in dict.fromkeys(getattr(subgraph, kind)):
            tensor = subgraph.tensors[index]
            # Indices of the model's own are integers of no grid.
            if tensor.type != flatbuffer.INT8 or not flatbuffer.scale_count(tensor):
                continue
            grid = tensor.quantization
            higher = (np.float32(grid.scale), np.int64(grid.zeroPoint) + 128, 0)
            byte = editing.add_like(model, subgraph, tensor, "_uint8", _TYPE.UINT8, higher)
            ends = (byte, index) if kind == "inputs" else (index, byte)
            _quantize(model, subgraph, *ends)
            replace_end(model, kind, index, byte)
