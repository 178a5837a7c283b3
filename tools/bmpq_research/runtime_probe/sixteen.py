"""What the runtimes do with activations of 16 bits: operators with weights of 2, 4 and 8 bits, and
those without weights.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from bmpq_research import tflite_builder
from bmpq_research.runtime_probe import conversions, one_operator, probe, weighted_operators
from bmpq_tf._compat.litert import schema
from bmpq_tf.export.micro import operators as micro_operators

RUNTIMES = conversions.RUNTIMES
COLUMNS = ("operator", "weights", "scales", *RUNTIMES)
_BUILTIN, _INT16, _INT32 = schema.BuiltinOperator, schema.TensorType.INT16, schema.TensorType.INT32
_LARGEST = 2**15 - 1
# In steps of the output. Where a table stands for a function, a quarter of a step of int8.
_ALLOWED, _ALLOWED_OF_TABLES = 1.0, 64.0


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one runtime did with one operator.

    Attributes:
        operator, bits, granularity, runtime: which; without weights `bits` is `None`.
        outcome: `"right"`, `"wrong"` or `"refused"`: no kernel.
        error: the largest difference from NumPy, in steps of the output.
    """

    operator: str
    bits: int | None
    granularity: str
    runtime: str
    outcome: str
    error: float | None


@dataclasses.dataclass(frozen=True)
class Weightless:
    """An operator without weights.

    Attributes:
        name: of the builtin.
        answer: what it computes of its inputs, float64.
        shapes: of the inputs.
        options: `(name, fields)` of its flatbuffer options.
        constants: int32 operands behind the inputs.
        scale: of the output: `None` for the largest answer's, `"same"` for the input's, or a number
            that its kernel insists on.
        positive: whether it takes positive values only.
        is_table: whether a table stands for a function.
    """

    name: str
    answer: Callable[..., np.ndarray]
    shapes: tuple[tuple[int, ...], ...] = ((1, 6, 6, 4),)
    options: tuple[str, dict] = ("", {})
    constants: tuple[np.ndarray, ...] = ()
    scale: float | str | None = None
    positive: bool = False
    is_table: bool = False


def _softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _pooled(reduce):
    return lambda x: reduce(x.reshape(1, 3, 2, 3, 2, 4), (2, 4))


def _gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


_TWO, _POOL = ((1, 6, 6, 4),) * 2, {"padding": 1, "filterWidth": 2, "filterHeight": 2}
_POOL |= {"strideW": 2, "strideH": 2}
_AXES, _SAME = np.int32([1, 2]), "same"
_BLOCK = np.int32([2, 2])
WEIGHTLESS = (
    Weightless("ADD", np.add, _TWO, ("Add", {"potScaleInt16": False})),
    Weightless("SUB", np.subtract, _TWO, ("Sub", {"potScaleInt16": False})),
    Weightless("MUL", np.multiply, _TWO, ("Mul", {})),
    Weightless("DIV", lambda x, y: x / y, _TWO, ("Div", {}), positive=True),
    Weightless("MAXIMUM", np.maximum, _TWO, ("MaximumMinimum", {}), scale=_SAME),
    Weightless("MINIMUM", np.minimum, _TWO, ("MaximumMinimum", {}), scale=_SAME),
    Weightless("SQUARED_DIFFERENCE", lambda x, y: (x - y) ** 2, _TWO),
    Weightless("AVERAGE_POOL_2D", _pooled(np.mean), options=("Pool2D", _POOL), scale=_SAME),
    Weightless("MAX_POOL_2D", _pooled(np.max), options=("Pool2D", _POOL), scale=_SAME),
    Weightless("MEAN", lambda x: x.mean((1, 2)), options=("Reducer", {}), constants=(_AXES,)),
    Weightless("SUM", lambda x: x.sum((1, 2)), options=("Reducer", {}), constants=(_AXES,)),
    Weightless(
        "REDUCE_MAX",
        lambda x: x.max((1, 2)),
        options=("Reducer", {}),
        constants=(_AXES,),
        scale=_SAME,
    ),
    Weightless("RELU", lambda x: np.maximum(x, 0), scale=_SAME),
    Weightless("RELU6", lambda x: x.clip(0, 6), scale=_SAME),
    Weightless(
        "LEAKY_RELU", lambda x: np.where(x < 0, 0.25 * x, x), options=("LeakyRelu", {"alpha": 0.25})
    ),
    Weightless("HARD_SWISH", lambda x: x * (x + 3).clip(0, 6) / 6),
    Weightless("LOGISTIC", lambda x: 1 / (1 + np.exp(-x)), scale=1 / 32768, is_table=True),
    Weightless("TANH", np.tanh, scale=1 / 32768, is_table=True),
    Weightless(
        "SOFTMAX", _softmax, options=("Softmax", {"beta": 1.0}), scale=1 / 32768, is_table=True
    ),
    Weightless("GELU", _gelu, options=("Gelu", {"approximate": True}), is_table=True),
    Weightless("ELU", lambda x: np.where(x < 0, np.expm1(x), x), is_table=True),
    Weightless("EXP", np.exp, is_table=True),
    Weightless("ABS", np.abs, scale=_SAME),
    Weightless("NEG", np.negative, scale=_SAME),
    Weightless("SQUARE", np.square),
    Weightless("SQRT", np.sqrt, positive=True, is_table=True),
    Weightless("RSQRT", lambda x: 1 / np.sqrt(x), positive=True, is_table=True),
    Weightless(
        "CONCATENATION",
        lambda x, y: np.concatenate([x, y], 3),
        _TWO,
        ("Concatenation", {"axis": 3}),
        scale=_SAME,
    ),
    Weightless(
        "RESHAPE",
        lambda x: x.reshape(1, 36, 4),
        options=("Reshape", {"newShape": [1, 36, 4]}),
        constants=(np.int32([1, 36, 4]),),
        scale=_SAME,
    ),
    Weightless(
        "TRANSPOSE",
        lambda x: x.transpose(0, 2, 1, 3),
        options=("Transpose", {}),
        constants=(np.int32([0, 2, 1, 3]),),
        scale=_SAME,
    ),
    Weightless(
        "PAD",
        lambda x: np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))),
        options=("Pad", {}),
        constants=(np.int32([[0, 0], [1, 1], [1, 1], [0, 0]]),),
        scale=_SAME,
    ),
    Weightless(
        "STRIDED_SLICE",
        lambda x: x[:, 1:5, ::2],
        options=("StridedSlice", {}),
        constants=(np.int32([0, 1, 0, 0]), np.int32([1, 5, 6, 4]), np.int32([1, 1, 2, 1])),
        scale=_SAME,
    ),
    Weightless(
        "SLICE",
        lambda x: x[:, 1:5],
        options=("Slice", {}),
        constants=(np.int32([0, 1, 0, 0]), np.int32([1, 4, 6, 4])),
        scale=_SAME,
    ),
    Weightless(
        "RESIZE_NEAREST_NEIGHBOR",
        lambda x: x.repeat(2, 1).repeat(2, 2),
        options=("ResizeNearestNeighbor", {}),
        constants=(np.int32([12, 12]),),
        scale=_SAME,
    ),
    Weightless(
        "RESIZE_BILINEAR",
        lambda x: x,
        options=("ResizeBilinear", {}),
        constants=(np.int32([6, 6]),),
        scale=_SAME,
    ),
    Weightless(
        "SPACE_TO_DEPTH",
        lambda x: x.reshape(1, 3, 2, 3, 2, 4).transpose(0, 1, 3, 2, 4, 5).reshape(1, 3, 3, 16),
        options=("SpaceToDepth", {"blockSize": 2}),
        scale=_SAME,
    ),
    Weightless(
        "SPACE_TO_BATCH_ND",
        lambda x: x.reshape(1, 3, 2, 3, 2, 4).transpose(2, 4, 0, 1, 3, 5).reshape(4, 3, 3, 4),
        constants=(_BLOCK, np.zeros((2, 2), np.int32)),
        scale=_SAME,
    ),
    Weightless(
        "EXPAND_DIMS",
        lambda x: x[:, None],
        options=("ExpandDims", {}),
        constants=(np.int32(1).reshape(1),),
        scale=_SAME,
    ),
    Weightless(
        "PACK",
        lambda x, y: np.stack([x, y], 1),
        _TWO,
        ("Pack", {"axis": 1, "valuesCount": 2}),
        scale=_SAME,
    ),
    Weightless(
        "BATCH_TO_SPACE_ND",
        lambda x: x.reshape(2, 2, 1, 3, 3, 4).transpose(2, 3, 0, 4, 1, 5).reshape(1, 6, 6, 4),
        ((4, 3, 3, 4),),
        constants=(_BLOCK, np.zeros((2, 2), np.int32)),
        scale=_SAME,
    ),
    Weightless(
        "GATHER",
        lambda x: x[:, [3, 1]],
        options=("Gather", {"axis": 1}),
        constants=(np.int32([3, 1]),),
        scale=_SAME,
    ),
    Weightless(
        "REVERSE_V2",
        lambda x: x[:, ::-1],
        options=("ReverseV2", {}),
        constants=(np.int32([1]),),
        scale=_SAME,
    ),
    Weightless("BATCH_MATMUL", np.matmul, ((1, 6, 8), (1, 8, 5)), ("BatchMatMul", {})),
)


def probe_all(runtimes: Iterable[str] | None = None) -> list[Seen]:
    """Runs every operator in every runtime, TFLM where it is installed."""
    if runtimes is None:
        runtimes = RUNTIMES if micro_operators.is_installed() else probe.RUNTIMES
    names, found = tuple(runtimes), []
    for operator in weighted_operators.OPERATORS:
        if "static" in operator.modes:
            for bits in reversed(probe.WIDTHS):
                for granularity in probe.GRANULARITIES:
                    case = one_operator.build(operator, bits, granularity, "16x8")
                    key = (operator.name, bits, granularity)
                    found += [_judged(*key, one, case, [case.inputs], _ALLOWED) for one in names]
    for operator in WEIGHTLESS:
        case, inputs = _weightless(operator)
        allowed = _ALLOWED_OF_TABLES if operator.is_table else _ALLOWED
        found += [_judged(operator.name, None, "", one, case, inputs, allowed) for one in names]
    return found


def _judged(name, bits, granularity, one: str, case, inputs, allowed: float) -> Seen:
    try:
        received = probe.run_with(case.content, one, inputs)
    except (RuntimeError, ValueError):
        return Seen(name, bits, granularity, one, "refused", None)
    error = float(np.abs(received - case.expected).max())
    return Seen(name, bits, granularity, one, "right" if error <= allowed else "wrong", error)


def _weightless(operator: Weightless) -> tuple[one_operator.Case, list[np.ndarray]]:
    """A model of the operator on inputs from -4 to 4, or from 1 to 4."""
    generator, scale = np.random.default_rng(0), np.float32(4 / _LARGEST)
    low = _LARGEST // 4 if operator.positive else -_LARGEST
    steps = [generator.integers(low, _LARGEST + 1, shape) for shape in operator.shapes]
    answer = operator.answer(*(one * float(scale) for one in steps))
    size = np.abs(answer).max()
    given = {None: size / _LARGEST, "same": scale}
    step = np.float32(given.get(operator.scale, operator.scale))
    file = tflite_builder.Builder()
    none = np.int64([0])
    fed = [
        file.tensor(f"given_{number}", shape, _INT16, grid=(np.float32([scale]), none, 0))
        for number, shape in enumerate(operator.shapes)
    ]
    constants = [
        file.tensor(f"constant_{number}", values.shape, _INT32, values)
        for number, values in enumerate(operator.constants)
    ]
    result = file.tensor("result", answer.shape, _INT16, grid=(np.float32([step]), none, 0))
    builtin = getattr(_BUILTIN, operator.name)
    file.operator(builtin, [*fed, *constants], [result], operator.options)
    expected = np.round(answer / step).clip(-_LARGEST - 1, _LARGEST)
    inputs = [one.astype(np.int16) for one in steps]
    return one_operator.Case(file.content(fed, [result]), inputs[0], expected), inputs


def rows(found: Iterable[Seen]) -> list[tuple[str, ...]]:
    """Returns the table's cells, a row for each operator, width and granularity."""
    table: dict[tuple[str, str, str], list[str]] = {}
    for seen in found:
        outcome = "-" if seen.outcome == "refused" else seen.outcome
        weights = f"int{seen.bits}" if seen.bits else ""
        table.setdefault((seen.operator, weights, seen.granularity), []).append(outcome)
    return [(*key, *cells) for key, cells in table.items()]
