"""Carries integers through operators that have int8 kernels, but that litert-quantizer does not
know and leaves float.
"""

from collections.abc import Mapping

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.integer import grids, lookup_tables, loop_states, loose_ends
from bmpq_tf.export.integer.ranges import Range, integer_grid
from bmpq_tf.export.tflite import editing, flatbuffer

_BUILTIN = schema.BuiltinOperator
# Those that only move or choose values, those that change them, and the one that only looks at
# their shape.
_SAME_GRID = flatbuffer.codes(
    """
    EXPAND_DIMS SQUEEZE SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND DEPTH_TO_SPACE TILE REDUCE_MAX
    REVERSE_V2
    """
)
_OWN_GRID = flatbuffer.codes("RELU6 LEAKY_RELU ELU ABS EXP LOG PRELU MINIMUM FILL")
_OWN_GRID |= {lookup_tables.STAND_IN}
# Their kernels give one grid only.
_FIXED_GRID = {
    _BUILTIN.LOG_SOFTMAX: (np.array([16 / 256], np.float32), np.array([127], np.int64)),
    _BUILTIN.L2_NORMALIZATION: (np.array([1 / 128], np.float32), np.array([0], np.int64)),
}
# Those that give no numbers of a grid.
_LOOKS = flatbuffer.codes("SHAPE ARG_MAX ARG_MIN GREATER GREATER_EQUAL LESS LESS_EQUAL")
# Their kernels compare integers as they are. What is cut off is not what they give.
_ON_ONE_GRID = flatbuffer.codes("MINIMUM FILL")
CARRIES = _SAME_GRID | _OWN_GRID | _LOOKS | set(_FIXED_GRID)
# Those whose int16 kernels were seen to answer rightly.
_CARRIES_WIDE = _SAME_GRID | flatbuffer.codes("RELU6 LEAKY_RELU SHAPE FILL")
_TRUTH = (np.array([1.0], np.float32), np.array([0], np.int64))


def carry_integers(
    model,
    ranges: Mapping[str, Range],
    io_dtype: str,
    bits: int,
    functions: Mapping[str, bytes],
):
    """Returns the model, changed in place, with every `DEQUANTIZE` moved behind such operators, and
    those that meet a `QUANTIZE` gone; lookup tables take the places of their stand-ins.

    Args:
        model: a partly quantized file, parsed.
        ranges: of the float model's tensors, by name.
        io_dtype: of the file's inputs and outputs.
        bits: the width of activations, 8 or 16.
        functions: what the stand-ins compute, by the name of their results.
    """
    loop_states.carry(model, ranges, io_dtype, bits)
    for loop in loop_states.loops(model):
        for number in (loop.condition, loop.body):
            _moved(model, model.subgraphs[number], ranges, bits, functions)
        loose_ends.drop_copies(model, model.subgraphs[loop.body])
    subgraph = model.subgraphs[0]
    moved = _moved(model, subgraph, ranges, bits, functions)
    if io_dtype != "float32":
        # A float reader of an output, gone by now, had put its DEQUANTIZE before it.
        subgraph.outputs = [moved.integers.get(index, index) for index in subgraph.outputs]
        for entry in [
            entry for signature in model.signatureDefs or () for entry in signature.outputs
        ]:
            entry.tensorIndex = moved.integers.get(entry.tensorIndex, entry.tensorIndex)
    loose_ends.drop_unread(model, subgraph)
    loose_ends.round_unread(model)
    return model


def _moved(model, subgraph, ranges: Mapping[str, Range], bits: int, functions) -> "_Moved":
    moved = _Moved(model, subgraph, ranges, bits, functions)
    operators, subgraph.operators = subgraph.operators, []
    for operator in operators:
        moved.add(operator)
    loose_ends.drop_unread(model, subgraph)
    return moved


class _Moved:
    """Appends operators one by one, each reading integers where there are any."""

    def __init__(self, model, subgraph, ranges: Mapping[str, Range], bits: int, functions):
        self.model, self.subgraph, self.ranges, self.bits = model, subgraph, ranges, bits
        self.functions, self.integer = functions, flatbuffer.ACTIVATIONS[bits]
        self.carries = CARRIES if bits == 8 else _CARRIES_WIDE
        self.integers: dict[int, int] = {}  # the int8 tensor behind a float one
        self.rounded: dict[int, grids.Grid] = {}  # what an int8 tensor was rounded to
        self.replaced: dict[int, int] = {}  # what a cancelled QUANTIZE would have given

    def add(self, operator) -> None:
        operator.inputs = [self.replaced.get(int(index), int(index)) for index in operator.inputs]
        builtin = flatbuffer.builtin_of(self.model, operator)
        if builtin == _BUILTIN.DEQUANTIZE and self._type(operator.inputs[0]) == self.integer:
            self.integers[operator.outputs[0]] = operator.inputs[0]
        elif builtin == _BUILTIN.QUANTIZE and operator.inputs[0] in self.integers:
            source = self.integers[operator.inputs[0]]
            if (
                _equal(self._grid_of(source), self._grid_of(operator.outputs[0]))
                and operator.outputs[0] not in self.subgraph.outputs
            ):
                self.replaced[operator.outputs[0]] = source
                return
            operator.inputs = [source]
        elif builtin == _BUILTIN.FAKE_QUANT:
            self._round(operator)
            return
        elif builtin in self.carries and self._floats(operator):
            self._carry(operator, builtin)
            return
        elif (
            builtin == _BUILTIN.CAST
            and self.bits == 8
            and self._type(operator.inputs[0]) == flatbuffer.BOOL
        ):
            self._cast_truth(operator)
            return
        elif builtin != _BUILTIN.QUANTIZE and self._type(operator.outputs[0]) == self.integer:
            # litert-quantizer has the last operator read an output of float32.
            operator.inputs = [self.integers.get(index, index) for index in operator.inputs]
        self.subgraph.operators.append(operator)

    def _carry(self, operator, builtin: int) -> None:
        name, result = self._name(operator.outputs[0]), operator.outputs[0]
        operands = self._floats(operator)
        for index in operands:
            self._take_input(index)
        if not all(
            index in self.integers or self._constant(index) is not None for index in operands
        ):
            self.subgraph.operators.append(operator)
            return
        if builtin in _LOOKS:
            self._read_integers(operator)
            self.subgraph.operators.append(operator)
            return
        if builtin in _FIXED_GRID:
            grid = _FIXED_GRID[builtin]
        elif builtin not in _OWN_GRID and operands[0] in self.integers:
            grid = self._grid_of(self.integers[operands[0]])
        elif builtin in _OWN_GRID and name in self.ranges:
            grid = self._grid(result)
        else:
            self.subgraph.operators.append(operator)
            return
        self.integers[result] = twin = self._integer_twin(result, grid)
        if builtin == lookup_tables.STAND_IN:
            self._look_up(operator.inputs[0], twin, self.functions[name])
        else:
            self._read_integers(operator, grid if builtin in _ON_ONE_GRID else None)
            operator.outputs = [twin]
            self.subgraph.operators.append(operator)
        self._append(editing.dequantize, twin, result)

    def _floats(self, operator) -> list[int]:
        """Which of an operator's operands are float."""
        return [i for i in operator.inputs if self._type(i) == flatbuffer.FLOAT32]

    def _constant(self, index: int):
        return flatbuffer.constant(self.model, self.subgraph.tensors[index])

    def _take_input(self, index: int) -> None:
        """Rounds an input of the model."""
        given = index in list(self.subgraph.inputs) and index not in self.integers
        if given and self._name(index) in self.ranges:
            self.integers[index] = self._integer_twin(index, self._grid(index))
            self._append(editing.quantize, index, self.integers[index])

    def _read_integers(self, operator, grid=None) -> None:
        """Makes an operator read integers, on one grid if that is given; constants get their own
        grid otherwise.
        """
        inputs = list(operator.inputs)
        for place, index in enumerate(inputs):
            if self._type(index) != flatbuffer.FLOAT32:
                continue
            values = self._constant(index)
            if values is not None:
                inputs[place] = grids.integer_constant(
                    self.model, self.subgraph, index, grid, self.bits
                )
                continue
            inputs[place] = source = self.integers[index]
            if grid is not None and not _equal(self._grid_of(source), grid):
                inputs[place] = self._integer_twin(
                    index, grid, f"_for_{len(self.subgraph.tensors)}"
                )
                self._append(editing.quantize, source, inputs[place])
        operator.inputs = inputs

    def _cast_truth(self, operator) -> None:
        """True is 1 and false is 0 on a grid of whole numbers."""
        result = operator.outputs[0]
        if self._type(result) == flatbuffer.FLOAT32:
            self.integers[result] = self._integer_twin(result, _TRUTH)
            operator.outputs = [self.integers[result]]
            operator.builtinOptions.outDataType = flatbuffer.INT8
            self.subgraph.operators.append(operator)
            self._append(editing.dequantize, self.integers[result], result)
        else:
            self.subgraph.operators.append(operator)

    def _look_up(self, index: int, result: int, function: bytes) -> None:
        source = self.integers[index]
        table = lookup_tables.table(function, self._grid_of(source), self._grid_of(result))
        self.subgraph.operators += lookup_tables.written(
            self.model, self.subgraph, source, result, table
        )

    def _round(self, operator) -> None:
        """A rounding to a trained grid is a change of the grid.

        None where its operand lies on it already.
        """
        data: int = operator.inputs[0]
        result = operator.outputs[0]
        is_float_input = (
            data in list(self.subgraph.inputs) and self._type(data) == flatbuffer.FLOAT32
        )
        if data not in self.integers and not is_float_input:
            self.subgraph.operators.append(operator)
            return
        source, grid = self.integers.get(data, data), grids.grid_of(operator)
        wanted = [integer_grid(grid.entry, self.bits), self._grid(result)]
        if self.rounded.get(source) == grid:
            wanted = []
        for number, one in enumerate(wanted[:1] if grid.bits >= 8 else wanted):
            if self._type(source) != self.integer or not _equal(self._grid_of(source), one):
                twin = self._integer_twin(result, one, f"_{number}")
                self._append(editing.quantize, source, twin)
                source = twin
        self.integers[result], self.rounded[source] = source, grid
        self._append(editing.dequantize, source, result)

    def _append(self, make, source: int, result: int) -> None:
        self.subgraph.operators.append(make(self.model, source, result))

    def _integer_twin(self, index: int, grid, suffix: str = "") -> int:
        tensor, suffix = self.subgraph.tensors[index], f"_integers{suffix}"
        return editing.add_like(self.model, self.subgraph, tensor, suffix, self.integer, grid)

    def _grid(self, index: int):
        return integer_grid(self.ranges[self._name(index)], self.bits)

    def _grid_of(self, index: int):
        parameters = self.subgraph.tensors[index].quantization
        return np.float32(parameters.scale), np.int64(parameters.zeroPoint)

    def _type(self, index: int) -> int:
        return self.subgraph.tensors[index].type

    def _name(self, index: int) -> str:
        return flatbuffer.tensor_name(self.subgraph.tensors[index])


def _equal(one, other) -> bool:
    return all(np.array_equal(ours, theirs) for ours, theirs in zip(one, other, strict=True))
