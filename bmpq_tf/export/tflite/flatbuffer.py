"""Reading and editing TFLite flatbuffers, through LiteRT's own object API."""

import itertools
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


class Builder:
    """Builds a model of one subgraph, tensor by tensor."""

    def __init__(self):
        self.model, self.subgraph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.subgraph]
        self.model.operatorCodes, self.model.buffers = [], [schema.BufferT()]
        self.subgraph.tensors, self.subgraph.operators = [], []

    def tensor(
        self, name: str, shape, kind: int, values: np.ndarray | None = None, grid=None
    ) -> int:
        """Adds a tensor, constant where it has values.

        `grid` is scales, zero points and their axis. Returns its index.
        """
        return add_tensor(self.model, self.subgraph, name, shape, kind, values, grid=grid)

    def operator(
        self, builtin: int, inputs: list[int], outputs: list[int], options: tuple[str, dict]
    ) -> None:
        """Adds an operator behind the last.

        `options` is the schema's name for them without `Options`, and their fields.
        """
        self.subgraph.operators.append(new_operator(self.model, builtin, inputs, outputs, options))

    def content(self, inputs: list[int], outputs: list[int]) -> bytes:
        """Returns the model's bytes."""
        self.subgraph.inputs, self.subgraph.outputs = inputs, outputs
        return serialised(self.model)


def add_tensor(
    model,
    subgraph,
    name: str,
    shape,
    kind: int,
    values: np.ndarray | None = None,
    signature=None,
    grid=None,
) -> int:
    """Adds a tensor to a subgraph and returns its index; see `Builder.tensor`.

    Its name gets a number where a tensor of the model has it already: litert-quantizer and all that
    looks tensors up go by their names. Files for microcontrollers have none.
    """
    tensor = schema.TensorT()
    tensor.shape, tensor.type = [int(size) for size in shape], kind
    tensor.name = _unused(model, name).encode()
    tensor.buffer, tensor.shapeSignature = 0, signature
    if values is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    if grid is not None:
        tensor.quantization = quantization(*grid)
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _unused(model, name: str) -> str:
    if not name:
        return name
    numbered = (f"{name}_{number}" for number in itertools.count(1))
    return next(free for free in itertools.chain([name], numbered) if not _is_taken(model, free))


def _is_taken(model, name: str) -> bool:
    # A parsed name is bytes.
    same = (name, name.encode())
    return any(tensor.name in same for subgraph in model.subgraphs for tensor in subgraph.tensors)


def quantization(scales: np.ndarray, zero_points: np.ndarray, axis: int = 0):
    """Returns a tensor's quantization parameters."""
    parameters = schema.QuantizationParametersT()
    parameters.scale, parameters.zeroPoint, parameters.quantizedDimension = (
        scales,
        zero_points,
        axis,
    )
    return parameters


def scale_count(tensor) -> int:
    """Returns how many scales a tensor has; 0 where it is not quantized."""
    return (
        0
        if tensor.quantization is None or tensor.quantization.scale is None
        else len(tensor.quantization.scale)
    )


def new_operator(
    model, builtin: int, inputs: list[int], outputs: list[int], options: tuple[str, dict]
):
    """Returns an operator that is in no subgraph yet; see `Builder.operator`."""
    operator = schema.OperatorT()
    operator.opcodeIndex = operator_code(model, builtin)
    operator.inputs, operator.outputs = (
        [int(index) for index in inputs],
        [int(index) for index in outputs],
    )
    name, fields = options
    if name:
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{name}Options")
        operator.builtinOptions = getattr(schema, f"{name}OptionsT")()
        for field, value in fields.items():
            setattr(operator.builtinOptions, field, value)
    return operator


def operator_code(model, builtin: int) -> int:
    """Returns the position of a builtin among a model's operator codes; adds a missing one."""
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, 127)
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


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


def add_metadata(model, entries: dict[str, bytes]) -> None:
    """Adds named buffers that the runtime carries along and does not read."""
    model.metadata = list(model.metadata or [])
    for name, data in entries.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(data, np.uint8)
        model.buffers.append(buffer)
        entry.name, entry.buffer = name, len(model.buffers) - 1
        model.metadata.append(entry)


def metadata(model) -> dict[str, bytes]:
    """Returns a model's named buffers."""
    named = {}
    for entry in model.metadata or []:
        data = model.buffers[entry.buffer].data
        named[text(entry.name)] = b"" if data is None else np.asarray(data, np.uint8).tobytes()
    return named


def add_signature(model, input_names: list[str], output_names: list[str]) -> None:
    """Names the model's inputs and outputs, as phones address them, in its only signature."""

    def maps(names, indices):
        entries = []
        for name, index in zip(names, indices, strict=True):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name.encode(), index
            entries.append(entry)
        return entries

    subgraph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = maps(input_names, list(subgraph.inputs))
    signature.outputs = maps(output_names, list(subgraph.outputs))
    model.signatureDefs = [signature]
