"""Operators between int8 tensors, without weights, and what NumPy says that they should answer."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from bmpq_tf._compat.litert import schema

_BUILTIN, _TYPE = schema.BuiltinOperator, schema.TensorType
_SHAPE = (2, 6, 5, 8)
_NUMPY = {_TYPE.INT8: np.int8, _TYPE.INT32: np.int32, _TYPE.BOOL: np.bool_}


@dataclasses.dataclass(frozen=True)
class Part:
    """An operand, or the result.

    Attributes:
        low, high: the range of its int8 grid; both `None` for what has none.
        kind: its type.
        shape: its sizes.
        constant: whether it lies in the file.
        integers: what it holds where that matters; any value of its type by default.
    """

    low: float | None = -1.0
    high: float | None = 2.0
    kind: int = _TYPE.INT8
    shape: tuple[int, ...] = _SHAPE
    constant: bool = False
    integers: Any = None

    @property
    def grid(self) -> tuple[np.float32, int] | None:
        """Scale and zero point."""
        if self.low is None or self.high is None:
            return None
        scale = np.float32((self.high - self.low) / 255)
        return scale, round(-128 - self.low / float(scale))

    def draw(self, generator) -> np.ndarray:
        """Returns values of its type."""
        if self.integers is not None:
            return np.asarray(self.integers, _NUMPY[self.kind]).reshape(self.shape)
        low, high = (0, 2) if self.kind == _TYPE.BOOL else (-128, 128)
        return generator.integers(low, high, self.shape).astype(_NUMPY[self.kind])

    def real(self, values: np.ndarray) -> np.ndarray:
        """Returns what values of its type mean."""
        if self.grid is None:
            return values
        scale, zero_point = self.grid
        return (values.astype(np.float64) - zero_point) * float(scale)

    def steps(self, values: np.ndarray) -> np.ndarray:
        """Returns real values in steps of its grid, rounded and saturated."""
        if self.grid is None:
            return np.asarray(values).astype(np.float64)
        scale, zero_point = self.grid
        return np.clip(np.round(values / float(scale)) + zero_point, -128, 127)


@dataclasses.dataclass(frozen=True)
class Int8Operator:
    """How to build one operator and to compute it.

    Attributes:
        name: the builtin's, and what of its use matters.
        builtin: its code.
        operands: what it reads.
        result: what it gives.
        answer: real operands to real results.
        options: `(name, fields)` of its flatbuffer options.
    """

    name: str
    builtin: int
    operands: tuple[Part, ...]
    result: Part
    answer: Callable[..., np.ndarray]
    options: tuple[str, dict] = ("", {})


def _unary(name: str, answer, operand: Part, result: Part, options=("", {})) -> Int8Operator:
    return Int8Operator(name, getattr(_BUILTIN, name), (operand,), result, answer, options)


def _reduced(name: str, answer) -> Int8Operator:
    axes = Part(None, None, _TYPE.INT32, (2,), True, [1, 2])
    return Int8Operator(
        name,
        getattr(_BUILTIN, name),
        (Part(), axes),
        Part(shape=(2, 1, 1, 8)),
        lambda x, _: answer(x, axis=(1, 2), keepdims=True),
        ("Reducer", {"keepDims": True}),
    )


def _compared(name: str, answer, second: Part, note: str = "") -> Int8Operator:
    words = name.title().replace("_", "")
    return Int8Operator(
        name + note,
        getattr(_BUILTIN, name),
        (Part(), second),
        Part(None, None, _TYPE.BOOL),
        answer,
        (words, {}),
    )


def _log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


_POSITIVE, _WIDE, _UNIT = Part(0.0, 6.0), Part(-4.0, 5.0), Part(-1.0, 1.0)
_CONDITION = Part(None, None, _TYPE.BOOL)
OPERATORS = (
    _unary("ABS", np.abs, _WIDE, Part(0.0, 5.0), ("Abs", {})),
    _unary("CEIL", np.ceil, _WIDE, _WIDE),
    _unary("COS", np.cos, _WIDE, _UNIT, ("Cos", {})),
    _unary("ELU", lambda x: np.where(x > 0, x, np.expm1(x)), _WIDE, Part(-1.0, 5.0)),
    _unary("EXP", np.exp, Part(-4.0, 2.0), Part(0.0, 7.4), ("Exp", {})),
    _unary("FLOOR", np.floor, _WIDE, _WIDE),
    _unary(
        "LEAKY_RELU",
        lambda x: np.where(x > 0, x, 0.25 * x),
        _WIDE,
        Part(-1.0, 5.0),
        ("LeakyRelu", {"alpha": 0.25}),
    ),
    _unary("LOG", np.log, Part(0.0, 6.0, integers=np.arange(480) % 255 - 127), Part(-4.0, 2.0)),
    _unary("LOG_SOFTMAX", _log_softmax, _WIDE, Part(-15.9375, 0.0), ("LogSoftmax", {})),
    _unary("NEG", np.negative, _WIDE, Part(-5.0, 4.0), ("Neg", {})),
    _unary("RELU6", lambda x: np.clip(x, 0, 6), Part(-4.0, 9.0), Part(0.0, 6.0)),
    _unary("ROUND", np.round, _WIDE, _WIDE),
    _unary(
        "RSQRT",
        lambda x: 1 / np.sqrt(x),
        Part(0.0, 6.0, integers=np.arange(480) % 255 - 127),
        Part(0.0, 6.6),
    ),
    _unary("SIGN", np.sign, _WIDE, _UNIT, ("Sign", {})),
    _unary("SIN", np.sin, _WIDE, _UNIT),
    _unary("SQRT", np.sqrt, _POSITIVE, Part(0.0, 2.5)),
    _unary("SQUARE", np.square, _WIDE, Part(0.0, 25.0), ("Square", {})),
    _unary("ZEROS_LIKE", np.zeros_like, _WIDE, _WIDE, ("ZerosLike", {})),
    Int8Operator(
        "PRELU",
        _BUILTIN.PRELU,
        (_WIDE, Part(-0.2, 0.6, shape=(1, 1, 8), constant=True)),
        Part(-3.0, 5.0),
        lambda x, slope: np.where(x > 0, x, slope * x),
    ),
    Int8Operator(
        "DIV",
        _BUILTIN.DIV,
        (_WIDE, Part(0.0, 3.0, integers=np.arange(480) % 191 - 63)),
        Part(-6.0, 7.0),
        np.divide,
        ("Div", {}),
    ),
    Int8Operator(
        "MINIMUM", _BUILTIN.MINIMUM, (Part(), Part()), Part(), np.minimum, ("MaximumMinimum", {})
    ),
    Int8Operator(
        "MAXIMUM", _BUILTIN.MAXIMUM, (Part(), Part()), Part(), np.maximum, ("MaximumMinimum", {})
    ),
    Int8Operator(
        "MUL of one tensor with itself",
        _BUILTIN.MUL,
        (_WIDE, Part(-4.0, 5.0, shape=(1,), constant=True)),
        Part(-20.0, 25.0),
        np.multiply,
        ("Mul", {}),
    ),
    *(
        _compared(name, answer, second, note)
        for name, answer in (
            ("GREATER", np.greater),
            ("GREATER_EQUAL", np.greater_equal),
            ("LESS", np.less),
            ("LESS_EQUAL", np.less_equal),
            ("EQUAL", np.equal),
            ("NOT_EQUAL", np.not_equal),
        )
        for second, note in ((Part(), ""), (Part(shape=(1,), constant=True), " with a constant"))
    ),
    *(
        Int8Operator(
            name, getattr(_BUILTIN, name), (_CONDITION, Part(), Part()), Part(), np.where, options
        )
        for name, options in (("SELECT", ("Select", {})), ("SELECT_V2", ("SelectV2", {})))
    ),
    _reduced("REDUCE_MAX", np.max),
    _reduced("REDUCE_MIN", np.min),
    Int8Operator(
        "FILL",
        _BUILTIN.FILL,
        (
            Part(None, None, _TYPE.INT32, (4,), False, _SHAPE),
            Part(shape=(), constant=True, integers=77),
        ),
        Part(),
        lambda shape, value: np.full(shape, value),
        ("Fill", {}),
    ),
    Int8Operator(
        "CAST from int8 to int32",
        _BUILTIN.CAST,
        (Part(None, None),),
        Part(None, None, _TYPE.INT32),
        lambda x: x,
        ("Cast", {"inDataType": _TYPE.INT8, "outDataType": _TYPE.INT32}),
    ),
    Int8Operator(
        "CAST from bool to int8",
        _BUILTIN.CAST,
        (_CONDITION,),
        Part(-128.0, 127.0),
        lambda x: x,
        ("Cast", {"inDataType": _TYPE.BOOL, "outDataType": _TYPE.INT8}),
    ),
    Int8Operator(
        "ADD of int32",
        _BUILTIN.ADD,
        (Part(None, None, _TYPE.INT32), Part(None, None, _TYPE.INT32, (1,), True, [128])),
        Part(None, None, _TYPE.INT32),
        np.add,
        ("Add", {}),
    ),
    Int8Operator(
        "GATHER from a constant",
        _BUILTIN.GATHER,
        (
            Part(shape=(256,), constant=True),
            Part(None, None, _TYPE.INT32, integers=np.arange(480) % 256),
        ),
        Part(),
        lambda table, index: table[index],
        ("Gather", {}),
    ),
    Int8Operator(
        "REVERSE_V2",
        _BUILTIN.REVERSE_V2,
        (Part(), Part(None, None, _TYPE.INT32, (1,), True, [1])),
        Part(),
        lambda x, _: x[:, ::-1],
        ("ReverseV2", {}),
    ),
)
