"""Editing parsed TFLite flatbuffers: tensors, buffers, operators, metadata and signatures."""

import itertools

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.tflite import flatbuffer

_BUILTIN = schema.BuiltinOperator


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
    """Adds a tensor; `grid` is scales, zero points and their axis. Returns its index.

    Its name gets a number where a tensor of the model has it already: litert-quantizer and all that
    looks tensors up go by their names. Files for microcontrollers have none.
    """
    tensor = schema.TensorT()
    tensor.shape, tensor.type = [int(size) for size in shape], kind
    tensor.name = _unused(model, name).encode()
    tensor.buffer, tensor.shapeSignature = 0, signature
    if values is not None:
        tensor.buffer = add_buffer(model, np.ascontiguousarray(values).tobytes())
    if grid is not None:
        tensor.quantization = quantization(*grid)
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def add_like(model, subgraph, tensor, suffix: str, kind: int, grid=None) -> int:
    """Adds a tensor of another one's sizes, open ones too, and of its name with a suffix."""
    name, signature = f"{flatbuffer.tensor_name(tensor)}{suffix}", tensor.shapeSignature
    return add_tensor(model, subgraph, name, tensor.shape, kind, signature=signature, grid=grid)


def add_buffer(model, content: bytes | np.ndarray) -> int:
    """Adds a buffer and returns its number."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(content, np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


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
    parameters.scale = scales
    parameters.zeroPoint = zero_points
    parameters.quantizedDimension = axis
    return parameters


def new_operator(
    model,
    builtin: int,
    inputs: list[int],
    outputs: list[int],
    options: tuple[str, dict] = ("", {}),
    custom: bytes | None = None,
):
    """Returns an operator that is in no subgraph yet.

    `options` is the schema's name for them without `Options`, and their fields.
    """
    operator = schema.OperatorT()
    operator.opcodeIndex = operator_code(model, builtin, custom)
    operator.inputs, operator.outputs = list(inputs), list(outputs)
    name, fields = options
    if name:
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{name}Options")
        operator.builtinOptions = getattr(schema, f"{name}OptionsT")()
        for field, value in fields.items():
            setattr(operator.builtinOptions, field, value)
    return operator


def become(model, operator, builtin: int, inputs: list[int], options: tuple[str, dict]) -> None:
    """Makes another operator of one, with the same outputs."""
    vars(operator).update(vars(new_operator(model, builtin, inputs, operator.outputs, options)))


def quantize(model, source: int, result: int):
    """Returns a `QUANTIZE` that is in no subgraph yet."""
    return new_operator(model, _BUILTIN.QUANTIZE, [source], [result], ("Quantize", {}))


def dequantize(model, source: int, result: int):
    """Returns a `DEQUANTIZE` that is in no subgraph yet."""
    return new_operator(model, _BUILTIN.DEQUANTIZE, [source], [result], ("Dequantize", {}))


def operator_code(model, builtin: int, custom: bytes | None = None) -> int:
    """Returns the position of a builtin, or a custom operator, among a model's operator codes; adds
    a missing one.
    """
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin and (code.customCode or None) == custom:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, 127)
    code.version, code.customCode = 1, custom
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def add_metadata(model, entries: dict[str, bytes]) -> None:
    """Adds named buffers that the runtime carries along and does not read."""
    model.metadata = list(model.metadata or [])
    for name, data in entries.items():
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, add_buffer(model, data)
        model.metadata.append(entry)


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
