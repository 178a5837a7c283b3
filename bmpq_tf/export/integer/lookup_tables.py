"""Functions of one int8 tensor as lookup tables.

An int8 tensor holds 256 values, so whatever is computed from one of them element by element is a
table of 256 entries: the float operators run once on every value that there is, and their answers
are rounded once. That is closer than an int8 kernel for each of the operators, which would round
after each, and serves functions that no int8 kernel computes. In the file, `CAST` and `ADD` make an
index of each value, and `GATHER` reads the table.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.tflite import editing, flatbuffer
from bmpq_tf.export.tflite.interpreter import TFLiteModel

_BUILTIN = schema.BuiltinOperator

# Operators that compute each element by itself, and are computed well from integers.
_PLAIN = flatbuffer.codes(
    """
    ADD SUB MUL MAXIMUM MINIMUM RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 ELU GELU HARD_SWISH LEAKY_RELU
    LOGISTIC TANH NEG SQUARE SQUARED_DIFFERENCE RSQRT
    """
)
# Those that are not, or have no kernel, as long as they do not stand alone.
_ROUGH = flatbuffer.codes(
    """
    ABS CEIL COS EXP FLOOR LOG ROUND SIGN SIN SQRT ZEROS_LIKE CAST DIV POW FLOOR_DIV FLOOR_MOD ATAN2
    EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND LOGICAL_OR LOGICAL_NOT SELECT
    SELECT_V2
    """
)
# Alone, these have an int8 kernel that answers rightly (docs/runtime_matrix.md).
ALONE = _PLAIN | flatbuffer.codes(
    "ABS EXP LOG SQRT CAST EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL"
)
ALONE |= flatbuffer.codes("LOGICAL_AND LOGICAL_OR LOGICAL_NOT SELECT SELECT_V2")
# TFLM has these between float tensors only, wrong, or not at all.
ALONE_IN_TFLM = ALONE - flatbuffer.codes("EXP LOG SQRT GELU RELU6 RELU_N1_TO_1 RELU_0_TO_1")
# What stands for a table until the grids are known.
STAND_IN = _BUILTIN.CUSTOM
_CODE = b"BMPQ_TABLE"
_SIZE = 256


def table(content: bytes, source, result) -> np.ndarray:
    """Returns a function's int8 answers for -128 to 127.

    Args:
        content: a model of the float operators, on 256 values.
        source, result: `(scale, zero point)` of what is read and of what is given.
    """
    steps = np.arange(-128, 128, dtype=np.float64)
    given, told = (_values(grid, steps) for grid in (source, result))
    with np.errstate(all="ignore"):
        answers = np.float64(TFLiteModel(content)([given.astype(np.float32)])[0])
    # Beyond the domain lie values that only the grid's rounding has.
    answers = np.clip(np.nan_to_num(answers), told[0], told[-1])
    rounded = np.round(answers / float(result[0][0])) + float(result[1][0])
    return np.asarray(np.clip(rounded, -128, 127), np.int8)


def _values(grid, steps: np.ndarray) -> np.ndarray:
    """What integers mean on a grid."""
    return (steps - float(grid[1][0])) * float(grid[0][0])


def folded(
    model, alone: frozenset[int] = ALONE, read: Iterable[int] = ()
) -> tuple[Any, dict[str, bytes]]:
    """Returns a copy of a float model in which a stand-in takes the place of operators that compute
    a function of one tensor, and these functions, as `table` takes them, by the name of their
    results.

    The copy shares tensors, constants and the other operators with the model.

    Args:
        model: the parsed float model.
        alone: operators that need no table where they stand alone.
        read: tensors that something outside of the model reads, beside its outputs.
    """
    subgraph = model.subgraphs[0]
    roots = _Roots(model, subgraph)
    twin, part = copy.copy(model), copy.copy(subgraph)
    twin.subgraphs = [part, *model.subgraphs[1:]]
    twin.operatorCodes = list(model.operatorCodes)
    kept, functions = [], {}
    needed = {*subgraph.outputs, *read}
    for operator in reversed(subgraph.operators):
        results = list(operator.outputs)
        if not needed.intersection(results):
            continue
        found = roots.function_of(results[0], alone)
        if found:
            source, operators = found
            name = flatbuffer.tensor_name(subgraph.tensors[results[0]])
            functions[name] = _content(model, source, results[0], operators)
            operator = editing.new_operator(twin, STAND_IN, [source], results[:1], custom=_CODE)
        kept.append(operator)
        needed.update(index for index in operator.inputs)
    part.operators = kept[::-1]
    return twin, functions


def written(model, subgraph, source: int, result: int, table: np.ndarray) -> list:
    """Returns the operators that look an int8 tensor up in a table; -128 to 127 lie at 0 to 255.

    Args:
        model, subgraph: get the tensors between.
        source, result: int8 tensors.
        table: as `table` gives it.
    """
    tensor = subgraph.tensors[result]
    name = flatbuffer.tensor_name(tensor)

    int8, int32 = flatbuffer.INT8, flatbuffer.INT32
    whole, places = (
        editing.add_like(model, subgraph, tensor, suffix, int32) for suffix in ("_whole", "_places")
    )
    first = editing.add_tensor(
        model, subgraph, f"{name}_first", [1], int32, np.array([128], np.int32)
    )
    grid = (tensor.quantization.scale, tensor.quantization.zeroPoint)
    held = editing.add_tensor(model, subgraph, f"{name}_table", [_SIZE], int8, table, grid=grid)
    return [
        editing.new_operator(model, builtin, operands, [into], options)
        for builtin, operands, into, options in (
            (_BUILTIN.CAST, [source], whole, ("Cast", {"inDataType": int8, "outDataType": int32})),
            (_BUILTIN.ADD, [whole, first], places, ("Add", {})),
            (_BUILTIN.GATHER, [held, places], result, ("Gather", {})),
        )
    ]


class _Roots:
    """Which tensors each tensor is a function of, element by element."""

    def __init__(self, model, subgraph):
        self.model, self.subgraph = model, subgraph
        self.producers: dict[int, Any] = {}
        self._places = {id(operator): n for n, operator in enumerate(subgraph.operators)}
        # By tensor: itself, and every single tensor that it can be computed from; earliest first.
        self._sources: dict[int, list[int]] = {}
        for operator in subgraph.operators:
            for index in operator.outputs:
                self.producers[index] = operator
                self._sources[index] = [*self._shared(operator), index]

    def _shared(self, operator) -> list[int]:
        builtin = flatbuffer.builtin_of(self.model, operator)
        if builtin not in _PLAIN | _ROUGH:
            return []
        computed = [index for index in operator.inputs if not self._is_scalar(index, operator)]
        if not computed or any(self._is_constant(index) for index in computed):
            return []
        lists = [self._sources.get(index, [index]) for index in computed]
        return [index for index in lists[0] if all(index in other for other in lists[1:])]

    def function_of(self, result: int, alone: frozenset[int]) -> tuple[int, list] | None:
        """Returns the earliest tensor that one is a function of and the operators between them, if
        a table should stand for these.
        """
        for source in self._sources.get(result, [result])[:-1]:
            if not (self._is_float(source) and self._is_float(result)):
                continue
            operators = self._between(source, result)
            builtins = {flatbuffer.builtin_of(self.model, one) for one in operators}
            if len(operators) == 1 and not builtins <= alone:
                return source, operators
            if len(operators) > 1 and (builtins & _ROUGH or any(map(self._cancels, operators))):
                return source, operators
        return None

    def _cancels(self, operator) -> bool:
        """Whether two roundings of one tensor's functions are subtracted, such as x - tanh(x)."""
        return flatbuffer.builtin_of(self.model, operator) == _BUILTIN.SUB and not any(
            self._is_constant(index) for index in operator.inputs
        )

    def _between(self, source: int, result: int) -> list:
        pending, found = [result], {}
        while pending:
            operator = self.producers[pending.pop()]
            if id(operator) not in found:
                found[id(operator)] = operator
                pending += [
                    index
                    for index in operator.inputs
                    if index != source and not self._is_constant(index)
                ]
        return sorted(found.values(), key=lambda operator: self._places[id(operator)])

    def _is_constant(self, index: int) -> bool:
        return flatbuffer.constant(self.model, self.subgraph.tensors[index]) is not None

    def _is_scalar(self, index: int, operator) -> bool:
        """Whether a tensor is one constant value for all elements."""
        values = flatbuffer.constant(self.model, self.subgraph.tensors[index])
        if values is None or not values.size:
            return False
        if values.size == 1:
            return True
        # As large as the result, it would not make it larger.
        result = self.subgraph.tensors[operator.outputs[0]]
        others = [one for one in operator.inputs if not self._is_constant(one)]
        same = any(np.array_equal(self.subgraph.tensors[one].shape, result.shape) for one in others)
        return same and bool((values == values.flat[0]).all())

    def _is_float(self, index: int) -> bool:
        return self.subgraph.tensors[index].type == flatbuffer.FLOAT32


def _content(model, source: int, result: int, operators: Sequence) -> bytes:
    """A model of these operators alone, on a vector."""
    before = model.subgraphs[0].tensors
    used = {index for one in operators for index in [*one.inputs, *one.outputs]}
    part, whole = schema.SubGraphT(), schema.ModelT()
    whole.version, whole.operatorCodes, whole.subgraphs = 3, model.operatorCodes, [part]
    whole.buffers, part.tensors = [schema.BufferT()], []
    for index, tensor in enumerate(before):
        twin = schema.TensorT()
        twin.name, twin.type, twin.buffer, twin.shape = tensor.name, tensor.type, 0, [_SIZE]
        values = flatbuffer.constant(model, tensor) if index in used else None
        if values is not None:
            twin.buffer = editing.add_buffer(whole, values.flat[:1].tobytes())
            twin.shape = []
        part.tensors.append(twin)
    part.operators, part.inputs, part.outputs = list(operators), [source], [result]
    return flatbuffer.serialised(whole)
