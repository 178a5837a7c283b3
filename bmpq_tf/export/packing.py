"""Replaces float constants by packed integers with our own known scales, through litert-quantizer's graph transformations."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from litert_quantizer import qtyping
from litert_quantizer.model_modifier import ModelModifier

from bmpq_tf.budget import container_bits
from bmpq_tf.export import graph_file
from bmpq_tf.export.matching import Match


@dataclasses.dataclass(frozen=True)
class StoredKernel:
    """What a kernel becomes in the file: `S * (stored - zero_point)`.

    Attributes:
        name: the tensor's.
        integers: int8, in the constant's own shape.
        scales: float32, one for each channel.
        zero_points: int64, 0, or -1 for channels whose sign was flipped into their complement.
        bits: the container: 2, 4 or 8.
    """

    name: str
    integers: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray
    bits: int


def stored_kernel(match: Match, name: str, shape: Sequence[int]) -> StoredKernel:
    """Works out a kernel's integers, scales and zero points as the file will hold them.

    A channel that folding multiplied by a negative factor has its signs flipped. Where `-q` does not fit the container
    (`-2^(N-1)`), the channel stores the complement `~q` with zero point -1, which is exact: `S * (~q + 1) = -S * q`.
    """
    kernel = match.kernel
    bits = container_bits(kernel.bits)
    flipped = match.row < 0
    overflow = flipped & (kernel.integers == -(2 ** (bits - 1))).any(axis=1)
    integers = np.where(flipped[:, None], -kernel.integers.astype(np.int16), kernel.integers)
    integers = np.where(overflow[:, None], ~kernel.integers, integers).astype(np.int8)
    others = [size for axis, size in enumerate(shape) if axis != match.channel_axis]
    stored = np.moveaxis(integers.reshape(len(integers), *others), 0, match.channel_axis)
    return StoredKernel(
        name=name,
        integers=np.ascontiguousarray(stored),
        scales=(np.abs(match.row) * kernel.scales).astype(np.float32),
        zero_points=np.where(overflow, -1, 0).astype(np.int64),
        bits=bits,
    )


def unfold_columns(model, matches: Sequence[Match]) -> None:
    """Takes the factors that were multiplied into a kernel's columns out again, as a multiplication of its input."""
    for number, match in enumerate(match for match in matches if match.column is not None):
        subgraph = model.subgraphs[match.subgraph]
        for position in sorted(graph_file.consumers(subgraph, match.tensor), reverse=True):
            operator = subgraph.operators[position]
            source = subgraph.tensors[operator.inputs[0]]
            factors = _add_tensor(model, subgraph, f"column_factors_{number}", [len(match.column)], match.column.astype(np.float32))
            scaled = _add_tensor(model, subgraph, f"scaled_input_{number}_{position}", list(source.shape), None, source.shapeSignature)
            multiply = schema.OperatorT()
            multiply.opcodeIndex = _operator_code(model, schema.BuiltinOperator.MUL)
            multiply.builtinOptionsType, multiply.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
            multiply.inputs, multiply.outputs = [int(operator.inputs[0]), factors], [scaled]
            operator.inputs = [scaled, *[int(index) for index in operator.inputs[1:]]]
            subgraph.operators.insert(position, multiply)


def pack(model, kernels: Sequence[tuple[Match, StoredKernel]]) -> bytes:
    """Returns the model with these kernels stored as integers and dequantized when it is loaded."""
    parameters = {}
    by_buffer: dict[int, qtyping.UniformQuantParams] = {}
    for match, stored in kernels:
        subgraph = model.subgraphs[match.subgraph]
        tensor = subgraph.tensors[match.tensor]
        # Tensors on one buffer must be packed once, by one and the same object.
        quantized = by_buffer.setdefault(
            int(tensor.buffer),
            qtyping.UniformQuantParams(
                num_bits=stored.bits,
                quantized_dimension=match.channel_axis,
                scale=stored.scales,
                zero_point=stored.zero_points,
                symmetric=not stored.zero_points.any(),
                quantized_data=stored.integers,
            ),
        )
        dequantize = [qtyping.QuantTransformation.ADD_DEQUANTIZE]
        parameters[stored.name] = qtyping.TensorTransformationParams(
            tensor_name=stored.name,
            consumers=[
                qtyping.OpToTensorParams(subgraph_op_id=position, transformations=dequantize, parameters=quantized)
                for position in graph_file.consumers(subgraph, match.tensor)
            ],
        )
    return bytes(ModelModifier(model).modify_model(parameters, enable_progress_bar=False))


def _add_tensor(model, subgraph, name: str, shape: list[int], values: np.ndarray | None, signature=None) -> int:
    buffer = schema.BufferT()
    buffer.data = None if values is None else np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name.encode(), [int(size) for size in shape], graph_file.FLOAT32
    tensor.buffer, tensor.shapeSignature = len(model.buffers) - 1, signature
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _operator_code(model, builtin: int) -> int:
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
