"""Attention masks with numbers that an int8 grid holds.

Keras puts -1e9 in the place of masked scores, or adds it, in front of a softmax. On an int8 grid
that reaches so far all scores would be zero. A number a little below all scores does the same: its
exponential is less than a step of the softmax's output.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.integer.ranges import Range
from bmpq_tf.export.tflite import editing, flatbuffer

_BUILTIN = schema.BuiltinOperator
_HUGE = 1e4
# exp(-12) of the largest score's weight is 6e-6, and a step of a softmax's output 4e-3.
_BELOW = 12.0


def limited(model, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Returns the ranges with those of masked scores limited, and limits the constants.

    Args:
        model: the parsed float model; changed in place.
        ranges: by tensor name.
    """
    found, subgraph = dict(ranges), model.subgraphs[0]
    # By the tensor that may be a mask: several scores may read one.
    readers: dict[int, list[tuple[Any, int, tuple[float, float], str, Range]]] = {}
    for operator in subgraph.operators:
        builtin = flatbuffer.builtin_of(model, operator)
        if not _feeds_softmax(model, subgraph, operator.outputs[0]):
            continue
        name = flatbuffer.tensor_name(subgraph.tensors[operator.outputs[0]])
        places = {
            _BUILTIN.SELECT: (1, 2),
            _BUILTIN.SELECT_V2: (1, 2),
            _BUILTIN.ADD: (0, 1),
            _BUILTIN.SUB: (0, 1),
        }.get(builtin, ())
        for place in places:
            scores = operator.inputs[places[1 - places.index(place)]]
            limits = found.get(flatbuffer.tensor_name(subgraph.tensors[scores]))
            if limits is None or max(map(abs, limits)) > _HUGE:
                continue
            low, high = limits[0] - _BELOW, limits[1]
            added = high - low
            size = added if builtin in (_BUILTIN.ADD, _BUILTIN.SUB) else -low
            ends = (min(low, 0.0), max(high, 0.0))
            reader = (operator, place, (size, added), name, ends)
            readers.setdefault(operator.inputs[place], []).append(reader)
    for index, reading in readers.items():
        largest = (max(one[2][0] for one in reading), max(one[2][1] for one in reading))
        is_constant = flatbuffer.constant(model, subgraph.tensors[index]) is not None
        is_mask = False
        for number, (operator, place, sizes, name, ends) in enumerate(reading):
            # What makes a mask for all of them is limited once, to what the largest scores need.
            if is_constant:
                is_mask = _limit(model, subgraph, operator, place, sizes, found)
            elif not number:
                is_mask = _limit(model, subgraph, operator, place, largest, found)
            if is_mask:
                found[name] = ends
    return found


def _limit(
    model, subgraph, operator, place: int, sizes: tuple[float, float], found: dict[str, Range]
) -> bool:
    """Limits a mask's constant, or the one that a mask is multiplied with or that is added to
    scores, to a size: the first, where it takes a score's place, the second, where it is added.

    Returns whether it was a mask.
    """
    size, added = sizes
    index = operator.inputs[place]
    values: Any = flatbuffer.constant(model, subgraph.tensors[index])
    if values is not None:
        if not _is_huge(values):
            return False
        operator.inputs[place] = _constant(model, subgraph, index, values, size)
        return True
    maker = next((one for one in subgraph.operators if index in list(one.outputs)), None)
    if maker is None:
        return False
    kind = flatbuffer.builtin_of(model, maker)
    if kind not in (_BUILTIN.MUL, _BUILTIN.ADD, _BUILTIN.SUB):
        return False
    size = size if kind == _BUILTIN.MUL else added
    for number, factor in enumerate(maker.inputs):
        values = flatbuffer.constant(model, subgraph.tensors[factor])
        if values is not None and values.size == 1 and _is_huge(values):
            maker.inputs[number] = _constant(model, subgraph, factor, values, size)
            sign = float(np.sign(values.flat[0]))
            name = flatbuffer.tensor_name(subgraph.tensors[index])
            end = sign * size if kind == _BUILTIN.MUL else -size - abs(sizes[0])
            found[name] = (min(0.0, end), max(0.0, end))
            return True
    return False


def _is_huge(values: np.ndarray) -> bool:
    return values.dtype == np.float32 and bool(values.size) and bool(np.abs(values).max() >= _HUGE)


def _constant(model, subgraph, index: int, values: np.ndarray, size: float) -> int:
    name = f"{flatbuffer.tensor_name(subgraph.tensors[index])}_limited_{len(subgraph.tensors)}"
    limited_values = np.clip(values, -size, size).astype(np.float32)
    return editing.add_tensor(
        model, subgraph, name, values.shape, flatbuffer.FLOAT32, limited_values
    )


def _feeds_softmax(model, subgraph, index: int) -> bool:
    """Whether a tensor is read by softmaxes only, as it is or in another shape."""
    readers = [subgraph.operators[position] for position in flatbuffer.consumers(subgraph, index)]
    return bool(readers) and all(
        builtin == _BUILTIN.SOFTMAX
        or (builtin == _BUILTIN.RESHAPE and _feeds_softmax(model, subgraph, reader.outputs[0]))
        for reader in readers
        for builtin in [flatbuffer.builtin_of(model, reader)]
    )
