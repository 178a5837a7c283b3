"""Vectors divided by their length, as `UnitNormalization` and `Dot(normalize=True)` do it.

Written with a reciprocal root, int8 loses short vectors: their sum of squares rounds to zero.
"""

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.tflite import editing, flatbuffer

_BUILTIN = schema.BuiltinOperator
# Lengths up to this one are no lengths, for the operator as for Keras's smallest number.
_SHORTEST = 1e-6


def rewrite(model) -> None:
    """Writes `x * min(rsqrt(sum(x * x)), 1 / epsilon)` as `L2_NORMALIZATION` where the sum goes
    over the last axis, in a parsed float model in place.

    Its int8 kernel adds the squares in 32 bits.
    """
    subgraph = model.subgraphs[0]
    producers = {index: operator for operator in subgraph.operators for index in operator.outputs}
    for operator in subgraph.operators:
        if _is(model, operator, _BUILTIN.MUL) and not _fused(operator):
            for data, factor in (operator.inputs, operator.inputs[::-1]):
                if _is_inverse_length(model, subgraph, producers, int(factor), int(data)):
                    editing.become(
                        model, operator, _BUILTIN.L2_NORMALIZATION, [data], ("L2Norm", {})
                    )
                    break


def _is_inverse_length(model, subgraph, producers, index: int, data: int) -> bool:
    """Whether a tensor is one divided by the lengths of another's vectors."""
    limited = producers.get(index)
    if _is(model, limited, _BUILTIN.MINIMUM):
        limits = [flatbuffer.constant(model, subgraph.tensors[i]) for i in limited.inputs]
        if not any(limit is not None and np.min(limit) >= 1 / _SHORTEST for limit in limits):
            return False
        index = limited.inputs[0 if limits[0] is None else 1]
    root = producers.get(index)
    if not _is(model, root, _BUILTIN.RSQRT):
        return False
    total = producers.get(root.inputs[0])
    if not (_is(model, total, _BUILTIN.SUM) and total.builtinOptions.keepDims):
        return False
    axes = flatbuffer.constant(model, subgraph.tensors[total.inputs[1]])
    rank = len(subgraph.tensors[data].shape)
    if axes is None or axes.reshape(-1).tolist() not in ([-1], [rank - 1]):
        return False
    square = producers.get(total.inputs[0])
    if _is(model, square, _BUILTIN.SQUARE):
        return square.inputs[0] == data
    is_product = _is(model, square, _BUILTIN.MUL) and not _fused(square)
    return is_product and list(square.inputs) == [data] * 2


def _is(model, operator, builtin: int) -> bool:
    return operator is not None and flatbuffer.builtin_of(model, operator) == builtin


def _fused(operator) -> int:
    return getattr(operator.builtinOptions, "fusedActivationFunction", 0)
