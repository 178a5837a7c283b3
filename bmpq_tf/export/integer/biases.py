"""A bias of its own for each operator: equal constants, which the converter shares, get grids and
types of their own.
"""

import collections

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.tflite import flatbuffer

_BUILTIN = schema.BuiltinOperator
# Which operand is the bias, where an operator has one.
PLACES = {
    _BUILTIN.CONV_2D: 2,
    _BUILTIN.DEPTHWISE_CONV_2D: 2,
    _BUILTIN.FULLY_CONNECTED: 2,
    _BUILTIN.TRANSPOSE_CONV: 3,
}


def separate(model) -> None:
    """Gives each operator of a parsed file a bias of its own."""
    for subgraph in model.subgraphs:
        readings = [
            (operator, place)
            for operator in subgraph.operators
            for place, index in enumerate(operator.inputs)
            if index >= 0
        ]
        read = collections.Counter(
            int(subgraph.tensors[operator.inputs[place]].buffer) for operator, place in readings
        )
        for operator, place in readings:
            tensor = subgraph.tensors[operator.inputs[place]]
            is_bias = place == PLACES.get(flatbuffer.builtin_of(model, operator))
            values = flatbuffer.constant(model, tensor) if is_bias else None
            if values is not None and read[int(tensor.buffer)] > 1:
                name = flatbuffer.tensor_name(tensor)
                operator.inputs[place] = flatbuffer.add_tensor(
                    model, subgraph, name, values.shape, flatbuffer.FLOAT32, values
                )
