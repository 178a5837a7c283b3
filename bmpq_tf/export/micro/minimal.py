"""Takes out of a file all that TFLM does without (docs/runtime_matrix.md, "TFLM")."""

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.tflite import flatbuffer

_BUILTIN = schema.BuiltinOperator


def strip(model) -> None:
    """Takes names, signatures, open sizes, and grids that no operator reads out of a parsed file.

    Its zero points become one for each tensor, and equal scales one.
    """
    model.signatureDefs = model.description = None
    for subgraph in model.subgraphs:
        subgraph.name = None
        biases = _free_biases(model, subgraph)
        for index, tensor in enumerate(subgraph.tensors):
            tensor.name = tensor.shapeSignature = None
            tensor.hasRank = False
            if index in biases:
                tensor.quantization = None
            if tensor.quantization is not None:
                _shorten(tensor.quantization)
        for operator in subgraph.operators:
            operator.mutatingVariableInputs = operator.intermediates = None


def equal_scales_as_one(model) -> None:
    """Gives kernels whose channels all have the same scale that one."""
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            if flatbuffer.scale_count(tensor) > 1 and len(set(tensor.quantization.scale)) == 1:
                tensor.quantization.scale = np.float32(tensor.quantization.scale[:1])
                tensor.quantization.quantizedDimension = 0


def _shorten(grid) -> None:
    # TFLM insists on one, and reads no other: kernels have none but 0.
    if grid.zeroPoint is not None and len(set(map(int, grid.zeroPoint))) == 1:
        grid.zeroPoint = np.int64(grid.zeroPoint[:1])
    grid.min = grid.max = None


def _free_biases(model, subgraph) -> set[int]:
    """Constants of int32 whose grid no kernel reads: all but those of fully connected layers."""
    constant, read = set(), set()
    for operator in subgraph.operators:
        builtin = flatbuffer.builtin_of(model, operator)
        for index in (index for index in operator.inputs if index >= 0):
            tensor = subgraph.tensors[index]
            if (
                tensor.type == schema.TensorType.INT32
                and model.buffers[tensor.buffer].data is not None
            ):
                constant.add(index)
                if builtin == _BUILTIN.FULLY_CONNECTED:
                    read.add(index)
    return constant - read
