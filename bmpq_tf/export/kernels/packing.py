"""Replaces float constants by packed integers with our own known scales, through litert-quantizer's
graph transformations.
"""

import copy
import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf._compat.litert_quantizer import modified, qtyping
from bmpq_tf.export.kernels import levels
from bmpq_tf.export.kernels.match import Match
from bmpq_tf.export.kernels.storage import Container
from bmpq_tf.export.tflite import editing, flatbuffer

_SMALLEST_SCALE = 1.2e-38


@dataclasses.dataclass(frozen=True)
class StoredKernel:
    """What a kernel becomes in the file: `S * (stored - zero_point)`.

    Attributes:
        name: the tensor's.
        integers: int8, in the constant's own shape.
        scales: float32, one for each channel.
        zero_points: int64, 0, or -1 for channels whose sign was flipped into their complement.
        axis: of the scales.
        container: the type, and how the operator reads it.
        factor: what the trained integers were multiplied with.
        too_coarse_in_int4: whether a bias would be, where int4 is the smallest form.
    """

    name: str
    integers: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray
    axis: int
    container: Container
    factor: int = 1
    too_coarse_in_int4: bool = False

    @property
    def bits(self) -> int:
        """The container's width: 2, 4 or 8."""
        return self.container.bits


def signed_integers(match: Match) -> np.ndarray:
    """Returns a kernel's integers, int16, with the signs of channels that folding multiplied by a
    negative factor changed.
    """
    return np.where(
        match.row[:, None] < 0, -match.kernel.integers.astype(np.int16), match.kernel.integers
    )


def stored_scales(match: Match) -> np.ndarray:
    """Returns a kernel's scales, float32, as the file will hold them."""
    # A scale that is zero or denormal, of a channel that folding silenced, would keep the operator
    # out of XNNPACK.
    scales = np.abs(match.row) * match.kernel.scales
    return np.maximum(scales, _SMALLEST_SCALE).astype(np.float32)


def stored_kernel(
    match: Match, name: str, shape: Sequence[int], container: Container
) -> StoredKernel:
    """Works out a kernel's integers, scales and zero points as the file will hold them.

    A channel that folding multiplied by a negative factor has its signs flipped. Where `-q` does
    not fit the container (`-2^(N-1)`), the channel stores the complement `~q` with zero point -1,
    which is exact: `S * (~q + 1) = -S * q`. Only what is dequantized may do so: kernels that
    compute with the integers insist on zero point 0.

    Raises:
        ValueError: the integers do not fit a container that is computed with.
    """
    kernel = match.kernel
    integers = signed_integers(match)
    overflow = (integers > 2 ** (container.bits - 1) - 1).any(axis=1)
    if overflow.any() and container.compute != "weight_only":
        raise ValueError(
            f"Kernel '{kernel.path}' holds {integers.max()}, which int{container.bits} does not."
        )
    integers = np.where(overflow[:, None], ~kernel.integers, integers).astype(np.int8)
    others = [size for axis, size in enumerate(shape) if axis != match.channel_axis]
    stored = np.moveaxis(integers.reshape(len(integers), *others), 0, match.channel_axis)
    return StoredKernel(
        name=name,
        integers=np.ascontiguousarray(stored),
        scales=stored_scales(match),
        zero_points=np.where(overflow, -1, 0).astype(np.int64),
        axis=match.channel_axis,
        container=container,
    )


def with_finer_steps(
    kernels: Sequence[tuple[Match, StoredKernel]],
    in_int4: Collection[str] = (),
    too_coarse: Collection[str] = (),
) -> list[tuple[Match, StoredKernel]]:
    """Returns the same weights in int8 as multiples of their integers, of scales as much smaller.

    Biases lie in steps of input times weight scale. Beside weights of few levels these are so
    coarse that rounding to them moves many sums to another step of the output.

    Args:
        kernels: as int8 holds them, with zero points of 0.
        in_int4: the tensors that int4 must hold too.
        too_coarse: those of them that need the room of int8 after all.
    """
    return [
        (match, _in_finer_steps(one, one.name in in_int4, one.name in too_coarse))
        for match, one in kernels
    ]


def _in_finer_steps(stored: StoredKernel, in_int4: bool, too_coarse: bool) -> StoredKernel:
    factor = (
        levels.factor_in_int4(stored.integers)
        if in_int4 and not too_coarse
        else levels.factor_in_int8(stored.integers)
    )
    return dataclasses.replace(
        stored,
        integers=(stored.integers * factor).astype(np.int8),
        scales=np.maximum(stored.scales / np.float32(factor), _SMALLEST_SCALE).astype(np.float32),
        factor=factor,
        too_coarse_in_int4=too_coarse,
    )


def parameters(stored: StoredKernel) -> qtyping.UniformQuantParams:
    """Returns a kernel as litert-quantizer takes it."""
    return qtyping.UniformQuantParams(
        num_bits=stored.bits,
        quantized_dimension=stored.axis,
        scale=stored.scales,
        zero_point=stored.zero_points,
        symmetric=not stored.zero_points.any(),
        quantized_data=stored.integers,
    )


def separate_buffers(model, matches: Sequence[Match]) -> None:
    """Gives each kernel a buffer of its own.

    The converter shares one among constants of equal bytes, zeros above all, whatever they are.
    """
    kernels = {
        (match.subgraph, match.tensor): (match.kernel.path, match.channel_axis) for match in matches
    }
    homes: dict[tuple, int] = {}
    taken: set[int] = set()
    for number, subgraph in enumerate(model.subgraphs):
        for index, tensor in enumerate(subgraph.tensors):
            # A kernel's own constants stay together, so that they are packed alike.
            held = kernels.get((number, index))
            holder = (tensor.buffer, held and (*held, tuple(tensor.shape)))
            if holder not in homes:
                homes[holder] = tensor.buffer
                if tensor.buffer in taken:
                    model.buffers.append(copy.copy(model.buffers[tensor.buffer]))
                    homes[holder] = len(model.buffers) - 1
                taken.add(tensor.buffer)
            tensor.buffer = homes[holder]


def unfold_columns(model, matches: Sequence[Match]) -> None:
    """Takes the factors that were multiplied into a kernel's columns out of it again, as a
    multiplication of its input.
    """
    for number, match in enumerate(match for match in matches if match.column is not None):
        subgraph = model.subgraphs[match.subgraph]
        tensor = subgraph.tensors[match.tensor]
        values = match.values(tensor.shape).astype(np.float32)
        model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
        column = np.asarray(match.column, np.float32)
        # One for all calls of a shared layer.
        factors = editing.add_tensor(
            model, subgraph, f"column_factors_{number}", column.shape, flatbuffer.FLOAT32, column
        )
        for position in sorted(flatbuffer.consumers(subgraph, match.tensor), reverse=True):
            operator = subgraph.operators[position]
            source = subgraph.tensors[operator.inputs[0]]
            scaled = editing.add_tensor(
                model,
                subgraph,
                f"scaled_input_{number}",
                source.shape,
                flatbuffer.FLOAT32,
                signature=source.shapeSignature,
            )
            multiply = editing.new_operator(
                model,
                schema.BuiltinOperator.MUL,
                [operator.inputs[0], factors],
                [scaled],
                ("Mul", {}),
            )
            operator.inputs = [scaled, *list(operator.inputs[1:])]
            subgraph.operators.insert(position, multiply)


def pack(model, kernels: Sequence[tuple[Match, StoredKernel]]) -> Any:
    """Returns a copy of the parsed model with these kernels as integers, dequantized when it is
    loaded or read by the operators as they are.
    """
    instructions = {}
    by_buffer: dict[int, qtyping.UniformQuantParams] = {}
    for match, stored in kernels:
        subgraph = model.subgraphs[match.subgraph]
        # Tensors on one buffer must be packed once, by one and the same object.
        quantized = by_buffer.setdefault(subgraph.tensors[match.tensor].buffer, parameters(stored))
        direct = stored.container.compute == "dynamic"
        transformation = (
            qtyping.QuantTransformation.QUANTIZE_TENSOR
            if direct
            else qtyping.QuantTransformation.ADD_DEQUANTIZE
        )
        instructions[stored.name] = qtyping.TensorTransformationParams(
            tensor_name=stored.name,
            consumers=[
                qtyping.OpToTensorParams(
                    subgraph_op_id=position, transformations=[transformation], parameters=quantized
                )
                for position in flatbuffer.consumers(subgraph, match.tensor)
            ],
        )
    return modified(model, instructions)
