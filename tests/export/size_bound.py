"""How large a file may be, from the trained model and its float conversion alone.

What a file holds is no excuse for holding it.
"""

import math

from bmpq_tf.conversion.freeze import frozen
from bmpq_tf.export.converter.convert import to_float_tflite
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.model.kernels import model_kernels


def size_bound(model, report) -> float:
    """Returns `1.03 * (packed weights + 12 a scale + every other constant that the graph needs) +
    16 kB + 400 an op`.
    """
    with frozen(model) as constant:
        floats = flatbuffer.parse(to_float_tflite(constant))
    kept = {layer.name: layer for layer in report.layers if layer.stored_bits < 32}
    kernels = [state for state in model_kernels(model) if state.kernel.path in kept]
    packed = sum(
        math.ceil(state.kernel.weights * kept[state.kernel.path].stored_bits / 8)
        for state in kernels
    )
    scales = sum(
        math.prod(state.variable.shape[axis] for axis in state.quantizer.channel_axes)
        for state in kernels
        if state.quantizer
    )
    others = _constant_bytes(floats) - sum(4 * state.kernel.weights for state in kernels)
    assert others >= 0
    operators = [operator for subgraph in floats.subgraphs for operator in subgraph.operators]
    if report.optimize_for == "integer":
        # Each bias has its kernel's scales again, and what is computed has one each.
        scales = (
            2 * scales + sum(len(operator.outputs) for operator in operators) + len(model.inputs)
        )
    return 1.03 * (packed + 12 * scales + others) + 16_000 + 400 * len(operators)


def _constant_bytes(file) -> int:
    """The bytes of all different constants."""
    used = {int(tensor.buffer) for subgraph in file.subgraphs for tensor in subgraph.tensors}
    contents = {
        bytes(file.buffers[index].data) for index in used if file.buffers[index].data is not None
    }
    return sum(len(content) for content in contents)
