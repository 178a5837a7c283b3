"""Reading TFLite flatbuffers, through LiteRT's own object API."""

from typing import Any

import numpy as np

from bmpq_tf._compat.litert import flatbuffer_utils as fb
from bmpq_tf._compat.litert import schema

FLOAT32, INT8 = fb.TensorType.FLOAT32, fb.TensorType.INT8
INT32, BOOL = fb.TensorType.INT32, fb.TensorType.BOOL
INT16, INT64 = fb.TensorType.INT16, fb.TensorType.INT64
# The types of activations in integer files, by their widths.
ACTIVATIONS = {8: INT8, 16: INT16}
_NUMPY = {
    fb.TensorType.FLOAT32: np.float32,
    fb.TensorType.FLOAT16: np.float16,
    fb.TensorType.INT64: np.int64,
    fb.TensorType.INT32: np.int32,
    fb.TensorType.INT16: np.int16,
    fb.TensorType.INT8: np.int8,
    fb.TensorType.UINT8: np.uint8,
    fb.TensorType.BOOL: np.bool_,
}
# The name of the buffer in which bmpq_tf tells of a file.
METADATA = "bmpq_tf"
# A flatbuffer's offsets reach 2 GiB; a little of that is for the graph.
LARGEST_BYTES = 2**31 - 2**24
PACKED_BITS = {fb.TensorType.INT8: 8, fb.TensorType.INT4: 4, fb.TensorType.INT2: 2}


def parse(content: bytes) -> Any:
    """Parses a TFLite model into objects; constants are views on `content`.

    Raises:
        ValueError: this is no TFLite model.
    """
    if len(content) < 8 or bytes(content[4:8]) != b"TFL3":
        raise ValueError("Not a TFLite model: the identifier 'TFL3' is missing at byte 4.")
    model = fb.read_model_from_bytearray(content)
    for buffer in model.buffers:
        # Buffers of large files lie behind the tables and come as bytes.
        if buffer.data is not None and not isinstance(buffer.data, np.ndarray):
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    # Python's integers, which are keys as they are.
    for subgraph in model.subgraphs or ():
        for part in (subgraph, *(subgraph.operators or ())):
            for ends in ("inputs", "outputs", "intermediates"):
                if getattr(part, ends, None) is not None:
                    setattr(part, ends, list(map(int, getattr(part, ends))))
    return model


def codes(names: str) -> frozenset[int]:
    """Returns the operators of these names, which spaces or lines part."""
    return frozenset(getattr(schema.BuiltinOperator, name) for name in names.split())


def constant(model, tensor) -> np.ndarray | None:
    """Returns a constant tensor's values, integers unpacked to int8.

    `None` for what is computed.
    """
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data):
        return None
    shape = () if tensor.shape is None else tuple(tensor.shape)
    # Bytes and arrays alike.
    raw = np.frombuffer(data, np.uint8)
    bits = PACKED_BITS.get(tensor.type)
    if bits in (2, 4):
        return _unpack(raw, bits, int(np.prod(shape))).reshape(shape)
    kind = _NUMPY.get(tensor.type)
    return None if kind is None else raw.view(kind).reshape(shape)


def _unpack(raw: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Low bits first, two's complement."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    fields = (raw[:, None] >> shifts).reshape(-1)[:count] & ((1 << bits) - 1)
    return ((fields.astype(np.int16) ^ (1 << (bits - 1))) - (1 << (bits - 1))).astype(np.int8)


def packed(integers: np.ndarray, bits: int) -> np.ndarray:
    """Returns integers as LiteRT stores them, several a byte, low bits first."""
    fields = integers.reshape(-1).astype(np.uint8) & ((1 << bits) - 1)
    each = 8 // bits
    fields = np.pad(fields, (0, -len(fields) % each)).reshape(-1, each)
    return np.bitwise_or.reduce(fields << np.arange(0, 8, bits, dtype=np.uint8), axis=1).astype(
        np.uint8
    )


def serialised(model) -> bytes:
    """Returns a model's bytes."""
    return bytes(fb.convert_object_to_bytearray(model))


def scale_count(tensor) -> int:
    """Returns how many scales a tensor has; 0 where it is not quantized."""
    return (
        0
        if tensor.quantization is None or tensor.quantization.scale is None
        else len(tensor.quantization.scale)
    )


def same_grid(one, other) -> bool:
    """Whether two tensors have the same scales and zero points."""
    return all(
        np.array_equal(getattr(one.quantization, field), getattr(other.quantization, field))
        for field in ("scale", "zeroPoint")
    )


def schema_name(builtin: int) -> str:
    """Returns a builtin operator's name."""
    return next(
        (name for name, code in vars(schema.BuiltinOperator).items() if code == builtin),
        f"operator {builtin}",
    )


def builtin_of(model, operator) -> int:
    """Returns an operator's builtin code."""
    code = model.operatorCodes[operator.opcodeIndex]
    return max(code.builtinCode or 0, code.deprecatedBuiltinCode or 0)


def is_dequantized_constant(model, subgraph, operator) -> bool:
    """Whether an operator only turns a stored constant into floats."""
    if builtin_of(model, operator) != schema.BuiltinOperator.DEQUANTIZE:
        return False
    return constant(model, subgraph.tensors[operator.inputs[0]]) is not None


def dequantized_constants(model, subgraph) -> dict[int, int]:
    """Returns the constant behind each tensor that only dequantizes one."""
    return {
        operator.outputs[0]: operator.inputs[0]
        for operator in subgraph.operators
        if is_dequantized_constant(model, subgraph, operator)
    }


def consumers(subgraph, index: int) -> list[int]:
    """Returns the positions of the operators that read a tensor."""
    return [
        position
        for position, operator in enumerate(subgraph.operators)
        if index in list(operator.inputs)
    ]


def tensor_name(tensor) -> str:
    """Returns a tensor's name as text; files for microcontrollers have none."""
    return "" if tensor.name is None else text(tensor.name)


def text(name) -> str:
    """Returns a name of the schema's, which may be bytes, as text."""
    return name.decode() if isinstance(name, bytes) else str(name)


def metadata(model) -> dict[str, bytes]:
    """Returns a model's named buffers."""
    named = {}
    for entry in model.metadata or []:
        data = model.buffers[entry.buffer].data
        named[text(entry.name)] = b"" if data is None else np.asarray(data, np.uint8).tobytes()
    return named
