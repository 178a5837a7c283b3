"""LiteRT's fused LSTM, built as a flatbuffer, and what it should answer."""

import numpy as np

from bmpq_research import tflite_builder
from bmpq_research.runtime_probe.one_operator import TYPES
from bmpq_tf._compat.litert import schema
from bmpq_tf.export.tflite import flatbuffer

_BUILTIN, _TYPE = schema.BuiltinOperator, schema.TensorType
_NONE = -1
# The grids of a static model's input and output.
_INPUT, _OUTPUT = (np.float32(2 / 127), 3), (np.float32(1 / 128), 0)
_GATE_SCALE = 2.0**-12


def fused(
    mode: str, bits: int, steps: int, features: int, units: int
) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Returns a model of one `UNIDIRECTIONAL_SEQUENCE_LSTM`, inputs for it, and the answers.

    Args:
        mode: `"weight_only"`, `"dynamic"` (hybrid) or `"static"` (8 bits, cell state of 16).
        bits: of the weights.
        steps, features, units: sizes; the batch is one, as its states have a batch of their own.
    """
    generator = np.random.default_rng(0)
    high = 2 ** (bits - 1) - 1
    low = -high if bits == 8 else -high - 1
    kernels = [
        generator.integers(low, high + 1, (4 * units, size)).astype(np.int8)
        for size in (features, units)
    ]
    scales = [np.float32(2.4 / abs(low) / np.sqrt(kernel.shape[1])) for kernel in kernels]
    bias = generator.standard_normal(4 * units) * 0.3
    whole = generator.integers(-128, 128, (1, steps, features)).astype(np.int8)
    inputs = ((whole.astype(np.float32) - _INPUT[1]) * _INPUT[0]).astype(np.float32)
    unit = _INPUT[0] * scales[0]
    if mode == "static":
        bias = np.round(bias / unit) * unit
    expected, cells = _answers(
        inputs[0].astype(np.float64),
        *(kernel * float(scale) for kernel, scale in zip(kernels, scales, strict=True)),
        bias,
    )
    content = _content(mode, bits, (steps, features, units), kernels, scales, bias, cells)
    return content, inputs, expected[None].astype(np.float32)


def _answers(inputs, kernel, recurrent, bias) -> tuple[np.ndarray, float]:
    """The outputs of all steps, and the largest cell state."""
    state, cell = np.zeros((2, recurrent.shape[1]))
    outputs, largest = [], 0.0
    for step in inputs:
        gates = np.split(kernel @ step + recurrent @ state + bias, 4)
        into, forget, out = (1 / (1 + np.exp(-gates[place])) for place in (0, 1, 3))
        cell = forget * cell + into * np.tanh(gates[2])
        state = out * np.tanh(cell)
        outputs.append(state)
        largest = max(largest, float(np.abs(cell).max()))
    return np.stack(outputs), largest


def _content(mode, bits, sizes, kernels, scales, bias, largest_cell) -> bytes:
    steps, features, units = sizes
    file, static = tflite_builder.Builder(), mode == "static"
    kind, outer = (_TYPE.INT8 if static else _TYPE.FLOAT32), (1, steps, features)
    fed = file.tensor("input", outer, _TYPE.FLOAT32)
    read = fed
    if static:
        read = file.tensor("integers", outer, kind, grid=_grid(*_INPUT))
        file.operator(_BUILTIN.QUANTIZE, [fed], [read], ("Quantize", {}))
    weights = [
        _weights(file, f"{name}_{gate}", mode, bits, part, scale)
        for name, kernel, scale in zip("kr", kernels, scales, strict=True)
        for gate, part in enumerate(np.split(kernel, 4))
    ]
    unit = _INPUT[0] * scales[0]
    biases = [
        file.tensor(
            f"b_{gate}", part.shape, _TYPE.INT32, np.int32(np.round(part / unit)), _grid(unit)
        )
        if static
        else file.tensor(f"b_{gate}", part.shape, _TYPE.FLOAT32, part.astype(np.float32))
        for gate, part in enumerate(np.split(bias, 4))
    ]
    cell_scale = 2.0 ** np.ceil(np.log2(1.2 * largest_cell)) / 2**15
    state = file.tensor("state", (1, units), kind, grid=_grid(*_OUTPUT) if static else None)
    cell = file.tensor(
        "cell",
        (1, units),
        _TYPE.INT16 if static else _TYPE.FLOAT32,
        grid=_grid(cell_scale) if static else None,
    )
    for index in (state, cell):
        file.subgraph.tensors[index].isVariable = True
    shape = (1, steps, units)
    result = file.tensor("result", shape, kind, grid=_grid(*_OUTPUT) if static else None)
    operands = [read, *weights, *3 * [_NONE], *biases, _NONE, _NONE, state, cell, *4 * [_NONE]]
    options = ("UnidirectionalSequenceLSTM", {"fusedActivationFunction": 4, "timeMajor": False})
    file.operator(_BUILTIN.UNIDIRECTIONAL_SEQUENCE_LSTM, operands, [result], options)
    if not static:
        return file.content([fed], [result])
    file.subgraph.operators[-1].intermediates = [
        *(file.tensor(f"gate_{n}", (1,), _TYPE.INT16, grid=_grid(_GATE_SCALE)) for n in range(4)),
        file.tensor("hidden", (1,), kind, grid=_grid(*_OUTPUT)),
    ]
    answer = file.tensor("output", shape, _TYPE.FLOAT32)
    file.operator(_BUILTIN.DEQUANTIZE, [result], [answer], ("Dequantize", {}))
    return file.content([fed], [answer])


def _weights(file, name: str, mode: str, bits: int, integers: np.ndarray, scale) -> int:
    packed = flatbuffer.packed(integers, bits) if bits < 8 else integers
    index = file.tensor(name, integers.shape, TYPES[bits], packed, grid=_grid(scale))
    if mode != "weight_only":
        return index
    read = file.tensor(f"{name}_float", integers.shape, _TYPE.FLOAT32)
    file.operator(_BUILTIN.DEQUANTIZE, [index], [read], ("Dequantize", {}))
    return read


def _grid(scale, zero_point: int = 0):
    return np.float32([scale]), np.int64([zero_point]), 0
