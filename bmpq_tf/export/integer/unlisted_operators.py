"""Carries integers through operators that have int8 kernels, but that litert-quantizer does not
know and leaves float.
"""

from collections.abc import Mapping

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf._compat.litert_quantizer import qtyping, tensor_zp_scale_from_min_max
from bmpq_tf.export.integer import grids
from bmpq_tf.export.integer.calibration import Range
from bmpq_tf.export.tflite import flatbuffer

_BUILTIN = schema.BuiltinOperator
# Those that only move or choose values, those that change them, and the one that only looks at
# their shape.
_SAME_GRID = (
    _BUILTIN.EXPAND_DIMS,
    _BUILTIN.SQUEEZE,
    _BUILTIN.SPACE_TO_BATCH_ND,
    _BUILTIN.BATCH_TO_SPACE_ND,
    _BUILTIN.DEPTH_TO_SPACE,
    _BUILTIN.TILE,
    _BUILTIN.REDUCE_MAX,
)
_OWN_GRID = (_BUILTIN.RELU6, _BUILTIN.LEAKY_RELU, _BUILTIN.ELU, _BUILTIN.NEG)
_CARRIES = (*_SAME_GRID, *_OWN_GRID, _BUILTIN.SHAPE)
_QUANTIZE, _DEQUANTIZE = ("Quantize", {}), ("Dequantize", {})


def carry_integers(model, ranges: Mapping[str, Range], io_dtype: str):
    """Returns the model, changed in place, with every `DEQUANTIZE` moved behind such operators, and
    those that meet a `QUANTIZE` gone.

    Args:
        model: a partly quantized file, parsed.
        ranges: of the float model's tensors, by name.
        io_dtype: of the file's inputs and outputs, `"float32"` or `"int8"`.
    """
    subgraph = model.subgraphs[0]
    moved = _Moved(model, subgraph, ranges)
    operators, subgraph.operators = subgraph.operators, []
    for operator in operators:
        moved.add(operator)
    if io_dtype == "int8":
        # A float reader of an output, gone by now, had put its DEQUANTIZE before it.
        subgraph.outputs = [
            moved.integers.get(int(index), int(index)) for index in subgraph.outputs
        ]
        for entry in [
            entry for signature in model.signatureDefs or () for entry in signature.outputs
        ]:
            entry.tensorIndex = moved.integers.get(int(entry.tensorIndex), int(entry.tensorIndex))
    _drop_dead(model, subgraph)
    return model


class _Moved:
    """Appends operators one by one, each reading integers where there are any."""

    def __init__(self, model, subgraph, ranges: Mapping[str, Range]):
        self.model, self.subgraph, self.ranges = model, subgraph, ranges
        self.integers: dict[int, int] = {}  # the int8 tensor behind a float one
        self.rounded: dict[int, grids.Grid] = {}  # what an int8 tensor was rounded to
        self.replaced: dict[int, int] = {}  # what a cancelled QUANTIZE would have given

    def add(self, operator) -> None:
        operator.inputs = [self.replaced.get(int(index), int(index)) for index in operator.inputs]
        builtin = flatbuffer.builtin_of(self.model, operator)
        if builtin == _BUILTIN.DEQUANTIZE and self._type(operator.inputs[0]) == flatbuffer.INT8:
            self.integers[int(operator.outputs[0])] = int(operator.inputs[0])
        elif builtin == _BUILTIN.QUANTIZE and operator.inputs[0] in self.integers:
            source = self.integers[operator.inputs[0]]
            if (
                self._same_grid(source, operator.outputs[0])
                and operator.outputs[0] not in self.subgraph.outputs
            ):
                self.replaced[int(operator.outputs[0])] = source
                return
            operator.inputs = [source]
        elif builtin == _BUILTIN.FAKE_QUANT:
            self._round(operator)
            return
        elif builtin in _CARRIES and self._type(operator.inputs[0]) == flatbuffer.FLOAT32:
            self._carry(operator, builtin)
            return
        elif builtin != _BUILTIN.QUANTIZE and self._type(operator.outputs[0]) == flatbuffer.INT8:
            # litert-quantizer has the last operator read an output of float32.
            operator.inputs = [self.integers.get(index, index) for index in operator.inputs]
        self.subgraph.operators.append(operator)

    def _carry(self, operator, builtin: int) -> None:
        data = operator.inputs[0]
        if (
            data not in self.integers
            and data in list(self.subgraph.inputs)
            and self._name(data) in self.ranges
        ):
            self.integers[data] = self._integer_twin(data, _grid(self.ranges[self._name(data)]))
            self._append(_BUILTIN.QUANTIZE, data, self.integers[data], _QUANTIZE)
        name = self._name(operator.outputs[0])
        if data in self.integers and (builtin not in _OWN_GRID or name in self.ranges):
            operator.inputs[0] = self.integers[data]
            self.subgraph.operators.append(operator)
            if builtin == _BUILTIN.SHAPE:
                return
            result = int(operator.outputs[0])
            grid = (
                _grid(self.ranges[name])
                if builtin in _OWN_GRID
                else self._grid_of(operator.inputs[0])
            )
            self.integers[result] = self._integer_twin(result, grid)
            operator.outputs = [self.integers[result]]
            self._append(_BUILTIN.DEQUANTIZE, self.integers[result], result, _DEQUANTIZE)
        else:
            self.subgraph.operators.append(operator)

    def _round(self, operator) -> None:
        """A rounding to a trained grid is a change of the grid.

        None where its operand lies on it already.
        """
        data, result = int(operator.inputs[0]), int(operator.outputs[0])
        is_float_input = (
            data in list(self.subgraph.inputs) and self._type(data) == flatbuffer.FLOAT32
        )
        if data not in self.integers and not is_float_input:
            self.subgraph.operators.append(operator)
            return
        source, grid = self.integers.get(data, data), grids.grid_of(operator)
        wanted = [_grid(grid.entry), _grid(self.ranges[self._name(result)])]
        if self.rounded.get(source) == grid:
            wanted = []
        for number, one in enumerate(wanted[:1] if grid.bits == 8 else wanted):
            if self._type(source) != flatbuffer.INT8 or not _equal(self._grid_of(source), one):
                twin = self._integer_twin(result, one, f"_{number}")
                self._append(_BUILTIN.QUANTIZE, source, twin, _QUANTIZE)
                source = twin
        self.integers[result], self.rounded[source] = source, grid
        self._append(_BUILTIN.DEQUANTIZE, source, result, _DEQUANTIZE)

    def _append(self, builtin: int, source: int, result: int, options) -> None:
        self.subgraph.operators.append(
            flatbuffer.new_operator(self.model, builtin, [source], [result], options)
        )

    def _integer_twin(self, index: int, grid, suffix: str = "") -> int:
        tensor = self.subgraph.tensors[index]
        name = f"{self._name(index)}_integers{suffix}"
        return flatbuffer.add_tensor(
            self.model,
            self.subgraph,
            name,
            tensor.shape,
            flatbuffer.INT8,
            signature=tensor.shapeSignature,
            grid=grid,
        )

    def _grid_of(self, index: int):
        parameters = self.subgraph.tensors[index].quantization
        return np.float32(parameters.scale), np.int64(parameters.zeroPoint)

    def _same_grid(self, one: int, other: int) -> bool:
        return _equal(self._grid_of(one), self._grid_of(other))

    def _type(self, index: int) -> int:
        return self.subgraph.tensors[index].type

    def _name(self, index: int) -> str:
        return flatbuffer.tensor_name(self.subgraph.tensors[index])


def _grid(limits: Range) -> tuple[np.ndarray, np.ndarray]:
    low, high = (np.array([limit], np.float32) for limit in limits)
    zero_point, scale = tensor_zp_scale_from_min_max(
        low, high, 8, False, qtyping.QuantGranularity.TENSORWISE
    )
    return np.float32(scale).reshape(-1), np.int64(zero_point).reshape(-1)


def _equal(one, other) -> bool:
    return all(np.array_equal(ours, theirs) for ours, theirs in zip(one, other, strict=True))


def _drop_dead(model, subgraph) -> None:
    """Removes conversions that nothing reads."""
    read = {int(index) for operator in subgraph.operators for index in operator.inputs} | {
        int(index) for index in subgraph.outputs
    }
    subgraph.operators = [
        operator
        for operator in subgraph.operators
        if flatbuffer.builtin_of(model, operator) != _BUILTIN.DEQUANTIZE
        or int(operator.outputs[0]) in read
    ]
