"""Ranges of inputs that are whole numbers, so that int8 holds each of them exactly."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.integer.calibration import Range
from bmpq_tf.export.integer.integer_inputs import doors
from bmpq_tf.export.tflite import flatbuffer

_TYPE = schema.TensorType
_WHOLE = {_TYPE.UINT8: (0.0, 255.0), _TYPE.INT8: (-128.0, 127.0), _TYPE.BOOL: (0.0, 1.0)}
_STEPS = 255
# Numbers that reach no further get finer steps, since a bias is rounded to steps of its input times
# those of the weights.
_FEW = 15


def ranges(model, measured: Mapping[str, Range]) -> dict[str, Range]:
    """Returns the ranges of the casts' results, by tensor name: those in which an int8 tensor holds
    every whole number exactly, where there are any.

    Args:
        model: the parsed float model.
        measured: ranges on data; empty where there are none.
    """
    subgraph, found = model.subgraphs[0], {}
    for door in doors(model):
        name = flatbuffer.tensor_name(subgraph.tensors[door.result])
        whole = _WHOLE.get(subgraph.tensors[door.source].type)
        if limits := _exact(whole, measured.get(name)):
            found[name] = limits
    return found


class Watched:
    """Passes batches of inputs on, and notes which inputs held nothing but pixels: whole numbers
    from 0 to 255, some of them above 15.
    """

    def __init__(self, batches: Iterable[Sequence[np.ndarray]]):
        self._batches = batches
        self._only_whole: dict[int, bool] = {}
        self._highest: dict[int, float] = {}

    def __iter__(self) -> Iterator[Sequence[np.ndarray]]:
        for batch in self._batches:
            for number, values in enumerate(batch):
                whole = values.dtype.kind in "ui" or bool((values == np.round(values)).all())
                whole &= bool(values.min(initial=0) >= 0 and values.max(initial=0) <= _STEPS)
                self._only_whole[number] = self._only_whole.get(number, True) and whole
                self._highest[number] = max(
                    self._highest.get(number, 0.0), float(values.max(initial=0))
                )
            yield batch

    def pixel_ranges(self, model) -> dict[str, Range]:
        """Returns the range of a byte for each float input of pixels, by tensor name."""
        subgraph, found = model.subgraphs[0], {}
        for number, index in enumerate(subgraph.inputs):
            tensor = subgraph.tensors[index]
            pixels = self._only_whole.get(number, False) and self._highest[number] > _FEW
            if pixels and tensor.type == flatbuffer.FLOAT32:
                found[flatbuffer.tensor_name(tensor)] = _WHOLE[_TYPE.UINT8]
        return found


def _exact(whole: Range | None, measured: Range | None) -> Range | None:
    if measured is None:
        return whole
    low, high = min(measured[0], 0.0), max(measured[1], 0.0)
    width = high - low
    if width > _STEPS or not width:
        return whole
    if width <= _FEW:
        # Steps of 1/k: every whole number is a multiple.
        step = 1.0 / (_STEPS // width)
        return low, low + _STEPS * step
    return whole or next(
        (one for one in _WHOLE.values() if one[0] <= low and high <= one[1]),
        (low, low + _STEPS),
    )
