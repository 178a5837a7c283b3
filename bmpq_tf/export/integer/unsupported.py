"""What an integer file would still compute with floats, or wrongly."""

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
        ends = {*subgraph.inputs, *subgraph.outputs}
        for operator in subgraph.operators:
            tensors = [index for index in [*operator.inputs, *operator.outputs] if index >= 0]
            floats = {
                index for index in tensors if subgraph.tensors[index].type == flatbuffer.FLOAT32
            }
            builtin = flatbuffer.builtin_of(model, operator)
            plain = [
                index
                for place, index in enumerate(operator.inputs)
                # Kernels may have a scale for each channel.
                if index >= 0 and not (place == 1 and builtin in biases.OPERAND)
            ]
            by_channel = any(
                subgraph.tensors[i].type == flatbuffer.INT8
                and flatbuffer.scale_count(subgraph.tensors[i]) > 1
                for i in plain
            )
            if builtin == _BUILTIN.GATHER:
                one, other = subgraph.tensors[tensors[0]], subgraph.tensors[tensors[-1]]
                # Those of indices have no grid.
                is_grid = one.type in flatbuffer.ACTIVATIONS.values()
                by_channel |= is_grid and not flatbuffer.same_grid(one, other)
            if by_channel or (floats and not (builtin in _CONVERSIONS and floats <= ends)):
                found.append(
                    (
                        flatbuffer.schema_name(builtin),
                        flatbuffer.tensor_name(subgraph.tensors[operator.outputs[0]]),
                    )
                )
    return found
