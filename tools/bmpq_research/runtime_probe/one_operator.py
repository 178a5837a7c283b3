"""Models of one operator with weights, built as flatbuffers, inputs for them, and the answers."""

import dataclasses

import numpy as np

from bmpq_research import tflite_builder
from bmpq_research.runtime_probe.weighted_operators import Operator
from bmpq_tf._compat.litert import schema
from bmpq_tf.export.tflite import flatbuffer

_BUILTIN = schema.BuiltinOperator
_LOOKUPS = (_BUILTIN.GATHER, _BUILTIN.EMBEDDING_LOOKUP)
TYPES = {
    2: schema.TensorType.INT2,
    4: schema.TensorType.INT4,
    8: schema.TensorType.INT8,
    32: schema.TensorType.FLOAT32,
}
# A grid that no symmetric rule finds by itself.
_INPUT_SCALE, _INPUT_ZERO = np.float32(2 / 127), 3
# Modes of integers only: the type of the activations, their zero point, and the type of a bias.
_STATIC = {"static": (np.int8, _INPUT_ZERO, np.int32), "16x8": (np.int16, 0, np.int64)}


@dataclasses.dataclass(frozen=True)
class Case:
    """A one-operator model, inputs for it, and the answer.

    Attributes:
        content: the model's bytes.
        inputs: as the model takes them.
        expected: NumPy's answer, float64; of static models, in steps of their output.
    """

    content: bytes
    inputs: np.ndarray
    expected: np.ndarray


def build(
    operator: Operator,
    bits: int,
    granularity: str,
    mode: str,
    *,
    narrow: bool = False,
    timed: bool = False,
    levels: int | None = None,
) -> Case:
    """Builds a model of one operator, with weights on every level of their width.

    8 bits are always without -128.

    Args:
        operator: one of `weighted_operators.OPERATORS`.
        bits: 2, 4 or 8 as stored; 32 builds the float model.
        granularity: one scale a `"channel"` or a `"tensor"`.
        mode: `"weight_only"`: integers and a `DEQUANTIZE`; `"dynamic"`: integers beside float
            inputs; `"static"`: integers only; `"16x8"`: integers only, activations of 16 bits.
        narrow: without the lowest level, `-2^(bits - 1)`.
        timed: with the shapes that time is taken on.
        levels: the width whose levels the weights are on; that of their type by default.
    """
    generator = np.random.default_rng(0)
    input_shape, weight_shape = (
        (operator.timed_input, operator.timed_weight)
        if timed
        else (operator.input_shape, operator.weight_shape)
    )
    integers, scales, weights = _weights(
        generator,
        bits if levels is None else levels,
        narrow,
        weight_shape,
        operator.channel_axis if granularity == "channel" else None,
    )
    static = mode in _STATIC and bits != 32
    kind, zero, bias_kind = _STATIC.get(mode, _STATIC["static"])
    levels_of_inputs = np.iinfo(kind)
    steps = generator.integers(levels_of_inputs.min, levels_of_inputs.max + 1, input_shape)
    scale = np.float32(_INPUT_SCALE * 127 / levels_of_inputs.max)
    inputs = steps * scale
    if operator.builtin in _LOOKUPS:
        inputs = generator.integers(0, weight_shape[0], input_shape)
    elif static:
        inputs = (steps - zero) * scale
    outputs = operator.answer(
        inputs.astype(np.int32 if operator.builtin in _LOOKUPS else np.float64),
        weights.astype(np.float64),
    )
    size = np.abs(outputs).max()
    bias = None
    if operator.has_bias:
        bias = generator.uniform(-size, size, outputs.shape[-1]) / 4
        unit = np.broadcast_to(scales * scale, bias.shape)
        whole = np.round(bias / unit).astype(bias_kind)
        outputs = outputs + whole * unit.astype(np.float64)
        bias = (whole, unit) if static else (whole * unit).astype(np.float32)
    # The largest answers saturate, as they would at the end of a calibrated range.
    step = np.float32(size / levels_of_inputs.max) if static else None
    content = _content(
        operator,
        (input_shape, outputs.shape),
        (integers if bits != 32 else weights, scales, bits, granularity),
        bias,
        mode,
        step,
    )
    if static:
        wanted = np.round(outputs / step).clip(levels_of_inputs.min, levels_of_inputs.max)
        return Case(content, steps.astype(kind), wanted)
    return Case(
        content, inputs.astype(np.int32 if operator.builtin in _LOOKUPS else np.float32), outputs
    )


def _weights(
    generator, bits: int, narrow: bool, shape, axis: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    levels = min(bits, 8)
    low = -(2 ** (levels - 1)) + (narrow or levels == 8)
    integers = generator.integers(low, 2 ** (levels - 1), shape).astype(np.int8)
    scales = (
        generator.uniform(0.5, 1.5, 1 if axis is None else shape[axis]) / 2 ** (levels - 1)
    ).astype(np.float32)
    spread = scales.reshape([-1 if number == axis else 1 for number in range(len(shape))])
    return integers, scales, (spread * integers).astype(np.float32)


def _content(operator: Operator, shapes, weights, bias, mode: str, step) -> bytes:
    integers, scales, bits, granularity = weights
    static, quantized = step is not None, bits != 32
    file = tflite_builder.Builder()
    kind, zero, bias_kind = _STATIC.get(mode, _STATIC["static"])
    types = {np.int8: schema.TensorType.INT8, np.int16: schema.TensorType.INT16}
    activation = types[kind] if static else schema.TensorType.FLOAT32
    index = operator.builtin in _LOOKUPS
    scale = np.float32(_INPUT_SCALE * 127 / np.iinfo(kind).max)
    grid = (np.float32([scale]), np.int64([zero]), 0) if static else None
    fed = file.tensor(
        "input", shapes[0], schema.TensorType.INT32 if index else activation, grid=grid
    )
    axis = operator.channel_axis if granularity == "channel" else 0
    kernel = file.tensor(
        "weights",
        integers.shape,
        TYPES[bits],
        flatbuffer.packed(integers, bits) if quantized else integers,
        grid=(scales, np.zeros(len(scales), np.int64), axis) if quantized else None,
    )
    if quantized and mode == "weight_only":
        loose = file.tensor("weights_float", integers.shape, schema.TensorType.FLOAT32)
        file.operator(_BUILTIN.DEQUANTIZE, [kernel], [loose], ("Dequantize", {}))
        kernel = loose
    operands = {
        _BUILTIN.GATHER: lambda: [kernel, fed],
        _BUILTIN.EMBEDDING_LOOKUP: lambda: [fed, kernel],
        _BUILTIN.TRANSPOSE_CONV: lambda: [
            file.tensor("shape", [4], schema.TensorType.INT32, np.int32(shapes[1])),
            kernel,
            fed,
        ],
    }.get(operator.builtin, lambda: [fed, kernel])()
    if static and bias is not None:
        whole, unit = bias
        grid = (unit[: len(scales)].astype(np.float32), np.zeros(len(scales), np.int64), 0)
        wide = bias_kind is np.int64
        bias_type = schema.TensorType.INT64 if wide else schema.TensorType.INT32
        operands.append(file.tensor("bias", whole.shape, bias_type, whole, grid=grid))
    elif bias is not None:
        operands.append(file.tensor("bias", bias.shape, schema.TensorType.FLOAT32, bias))
    result = file.tensor(
        "output",
        shapes[1],
        activation,
        grid=(np.float32([step]), np.int64([0]), 0) if static else None,
    )
    file.operator(operator.builtin, operands, [result], operator.options)
    return file.content([fed], [result])
