"""Does the packed file hold the integers, scales and zero points of the int8 file?"""

from collections.abc import Collection, Iterator

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.errors import ExportError
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.decode import decoded_constants, is_decode

_INTEGERS = (flatbuffer.INT8, flatbuffer.INT16, schema.TensorType.INT4)


def read_back(content: bytes, integer_content: bytes, kernels: Collection[str]) -> int:
    """Compares every constant that an operator reads as integers, and the grid of every tensor.

    Operator by operator.

    Args:
        content: the packed file.
        integer_content: the file of plain int8 kernels that it was made of.
        kernels: the names there of the constants that are trained kernels.

    Returns:
        The bytes of the kernels' buffers, tables left out.

    Raises:
        ExportError: a kernel differs.
    """
    model = flatbuffer.parse(content)
    found = list(operands(model))
    wanted = list(operands(flatbuffer.parse(integer_content)))
    buffers = {}
    for (name, values, scales, buffer, _), (other, others, its_scales, _, tensor) in zip(
        found, wanted, strict=True
    ):
        if tensor in kernels:
            buffers[buffer] = len(model.buffers[buffer].data)
        # Equal scales of all channels may lie there as one.
        same = name == other and np.array_equal(values, others)
        if not (same and np.all(scales == its_scales)):
            raise _differs(name, "integers")
    for (name, grid), (_, its_grid) in zip(
        _grids(model), _grids(flatbuffer.parse(integer_content)), strict=True
    ):
        # That of a bias may be gone.
        if grid is not None and (its_grid is None or not all(map(_meet, grid, its_grid))):
            raise _differs(name, "grids")
    return sum(buffers.values())


def _differs(operator: str, what: str) -> ExportError:
    return ExportError(
        f"The packed file does not hold the {what} that its {operator} was given. Nothing was "
        "written."
    )


def _meet(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether what is the same for all channels may stand there once."""
    return min(len(one), len(other)) in (1, max(len(one), len(other))) and bool(
        np.all(one == other)
    )


def _grids(model) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray] | None]]:
    """Yields the operator and the scales and zero points of each tensor that it reads or writes."""
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            if is_decode(model, operator):
                continue
            name = flatbuffer.schema_name(flatbuffer.builtin_of(model, operator))
            for index in (*operator.inputs, *operator.outputs):
                tensor = subgraph.tensors[index] if index >= 0 else None
                if tensor is None or not flatbuffer.scale_count(tensor):
                    yield name, None
                else:
                    grid = tensor.quantization
                    yield name, (np.asarray(grid.scale), np.asarray(grid.zeroPoint))


def operands(model) -> Iterator[tuple[str, np.ndarray, np.ndarray, int, str]]:
    """Yields the operator, the integers, the scales, the buffer and the name of each constant or
    decoded operand that has scales, in the order of the operators; no biases.
    """
    for subgraph in model.subgraphs:
        decoded = decoded_constants(model, subgraph)
        for operator in subgraph.operators:
            if is_decode(model, operator):
                continue
            for index in (index for index in operator.inputs if index >= 0):
                tensor = subgraph.tensors[index]
                values, buffer = None, tensor.buffer
                if index in decoded:
                    values, buffer = decoded[index].integers, decoded[index].buffer
                if values is None and tensor.type in _INTEGERS and flatbuffer.scale_count(tensor):
                    values = flatbuffer.constant(model, tensor)
                if values is not None:
                    name = flatbuffer.schema_name(flatbuffer.builtin_of(model, operator))
                    scales = np.asarray(tensor.quantization.scale, np.float32)
                    yield name, values, scales, buffer, flatbuffer.tensor_name(tensor)
