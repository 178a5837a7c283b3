"""Biases of integer files: one for each operator, in steps of input times weight scale."""

import collections
from collections.abc import Iterator

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf._compat.litert_quantizer import qtyping, symmetric_quantize_bias_tensor
from bmpq_tf.export.tflite import editing, flatbuffer

_BUILTIN = schema.BuiltinOperator
# Which operand is the bias, where an operator has one.
OPERAND = {
    _BUILTIN.CONV_2D: 2,
    _BUILTIN.DEPTHWISE_CONV_2D: 2,
    _BUILTIN.FULLY_CONNECTED: 2,
    _BUILTIN.TRANSPOSE_CONV: 3,
}
# Steps of an output from which on rounding a bias to one is coarse; most are below half a step.
COARSE = 4.0
# What an int32 accumulator takes with room to spare. Beside activations of 16 bits accumulators
# have 64, and a product with a multiplier takes 48.
_LARGEST, _LARGEST_WIDE = 2.0**30, 2.0**46
# Runtimes take smaller multipliers, from accumulators to steps of the output, for 0.
SMALLEST_MULTIPLIER = 2.0**-30


def largest(activations: qtyping.UniformQuantParams) -> float:
    """Returns the largest bias, in its steps, beside such activations."""
    return _LARGEST_WIDE if activations.num_bits == 16 else _LARGEST


def parameters(
    content: np.ndarray,
    activations: qtyping.UniformQuantParams,
    weights: qtyping.UniformQuantParams,
) -> qtyping.UniformQuantParams:
    """Returns a bias as litert-quantizer takes it; its own of 64 bits has the range of 32."""
    if activations.num_bits != 16:
        return symmetric_quantize_bias_tensor(content, activations, weights)
    scales = (activations.scale.reshape(-1)[:1] * weights.scale.reshape(-1)).astype(np.float32)
    values = np.round(content.astype(np.float64) / scales)
    return qtyping.UniformQuantParams(
        num_bits=64,
        quantized_dimension=None if len(scales) == 1 else 0,
        scale=scales,
        zero_point=np.zeros(len(scales), np.int32),
        symmetric=True,
        quantized_data=values.astype(np.int64),
    )


def separate(model) -> None:
    """Gives each operator of a parsed file a bias of its own.

    Equal constants, shared by the converter, get grids and types of their own.
    """
    for subgraph in model.subgraphs:
        readings = [
            (operator, place)
            for operator in subgraph.operators
            for place, index in enumerate(operator.inputs)
            if index >= 0
        ]
        read = collections.Counter(
            subgraph.tensors[operator.inputs[place]].buffer for operator, place in readings
        )
        for operator, place in readings:
            tensor = subgraph.tensors[operator.inputs[place]]
            is_bias = place == OPERAND.get(flatbuffer.builtin_of(model, operator))
            values = flatbuffer.constant(model, tensor) if is_bias else None
            if values is not None and read[tensor.buffer] > 1:
                name = flatbuffer.tensor_name(tensor)
                operator.inputs[place] = editing.add_tensor(
                    model, subgraph, name, values.shape, flatbuffer.FLOAT32, values
                )


def coarse(model, least: float = COARSE) -> dict[str, tuple[str, float]]:
    """Returns the kernels beside which a bias is rounded to so many steps of an output and more, by
    their tensors' names, the coarsest first.

    Each with the name of that output, and the steps in a channel that has weights.
    """
    found: dict[str, tuple[str, float]] = {}
    for kernel, output, step in sorted(_steps(model), key=lambda one: -one[2]):
        if step >= least:
            found.setdefault(kernel, (output, step))
    return found


def _steps(model) -> Iterator[tuple[str, str, float]]:
    """The kernel and the output of each operator with a bias, and the coarsest step of its bias in
    steps of the output.
    """
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            place = OPERAND.get(flatbuffer.builtin_of(model, operator))
            if place is None or place >= len(operator.inputs) or operator.inputs[place] < 0:
                continue
            bias, weights = (subgraph.tensors[operator.inputs[at]] for at in (place, 1))
            output = subgraph.tensors[operator.outputs[0]]
            integers = flatbuffer.constant(model, weights)
            grids = (bias, weights, output)
            if integers is None or not all(map(flatbuffer.scale_count, grids)):
                continue
            steps = np.asarray(bias.quantization.scale) / float(output.quantization.scale[0])
            axis = int(weights.quantization.quantizedDimension)
            others = tuple(number for number in range(integers.ndim) if number != axis)
            if len(steps) == integers.shape[axis]:
                steps = np.where(integers.any(others), steps, 0.0)
            yield (
                flatbuffer.tensor_name(weights),
                flatbuffer.tensor_name(output),
                float(steps.max()),
            )
