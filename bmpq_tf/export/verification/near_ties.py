"""Which top-1 answers differ only because an int8 output cannot tell two probabilities apart."""

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.tflite import flatbuffer

_INTEGERS = (flatbuffer.INT8, flatbuffer.INT16, schema.TensorType.UINT8)


def output_steps(model) -> list[float]:
    """Returns the step of each output of a parsed file; 0 where it is computed with floats."""
    subgraph = model.subgraphs[0]
    dequantized = {
        operator.outputs[0]: operator.inputs[0]
        for operator in subgraph.operators
        if flatbuffer.builtin_of(model, operator) == schema.BuiltinOperator.DEQUANTIZE
    }
    held = [subgraph.tensors[dequantized.get(index, index)] for index in subgraph.outputs]
    return [
        float(tensor.quantization.scale[0])
        if tensor.type in _INTEGERS and flatbuffer.scale_count(tensor)
        else 0.0
        for tensor in held
    ]


def near_ties(expected: np.ndarray, received: np.ndarray, step: float) -> int:
    """Returns how many positions have another top-1 that is at most a step less probable in Keras.

    0 for answers that are no probabilities, where a step may decide.

    Args:
        expected, received: Keras's answers and the file's, columns last.
        step: of the file's output.
    """
    if not np.allclose(expected.sum(-1), 1, atol=1e-3):
        return 0
    chosen = received.argmax(-1)
    below = expected.max(-1) - np.take_along_axis(expected, chosen[..., None], -1)[..., 0]
    return int(np.count_nonzero((chosen != expected.argmax(-1)) & (below <= step)))
