"""What an integer file would still compute with floats, or wrongly."""

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.integer import biases
from bmpq_tf.export.tflite import flatbuffer

_BUILTIN = schema.BuiltinOperator
_CONVERSIONS = (_BUILTIN.QUANTIZE, _BUILTIN.DEQUANTIZE)


def find(model) -> list[tuple[str, str]]:
    """Returns the names of the operators that are not integer-only and of their results.

    Conversions of the model's inputs and outputs are none.

    Also those of integers that answer wrongly, or end the process: `BATCH_MATMUL` with more than
    one scale, and whatever does not take an operand as weights; `GATHER` from one grid to another.
    """
    found = []
    for subgraph in model.subgraphs:
        ends = {int(index) for index in [*subgraph.inputs, *subgraph.outputs]}
        for operator in subgraph.operators:
            tensors = [int(index) for index in [*operator.inputs, *operator.outputs] if index >= 0]
            floats = {
                index for index in tensors if subgraph.tensors[index].type == flatbuffer.FLOAT32
            }
            builtin = flatbuffer.builtin_of(model, operator)
            plain = [
                int(index)
                for place, index in enumerate(operator.inputs)
                # Kernels may have a scale for each channel.
                if index >= 0 and not (place == 1 and builtin in biases.OPERAND)
            ]
            by_channel = any(
                subgraph.tensors[i].type == flatbuffer.INT8
                and flatbuffer.scale_count(subgraph.tensors[i]) > 1
                for i in plain
            )
            by_channel |= builtin == _BUILTIN.GATHER and not _same_grid(
                subgraph.tensors[tensors[0]], subgraph.tensors[tensors[-1]]
            )
            if by_channel or (floats and not (builtin in _CONVERSIONS and floats <= ends)):
                found.append(
                    (
                        flatbuffer.schema_name(builtin),
                        flatbuffer.tensor_name(subgraph.tensors[operator.outputs[0]]),
                    )
                )
    return found


def _same_grid(one, other) -> bool:
    """Whether two tensors of integers mean the same by them; those of indices have no grid."""
    grids = [
        (tensor.quantization.scale, tensor.quantization.zeroPoint)
        if tensor.type in flatbuffer.ACTIVATIONS.values()
        else ()
        for tensor in (one, other)
    ]
    return all(np.array_equal(ours, theirs) for ours, theirs in zip(*grids, strict=True))
