"""The trained ranges of activations as grids of int8 tensors.

A quantizer of `a` bits gives `step * k` for the integers `k` from `-z` to `2^a - 1 - z`. At 8 bits
an int8 tensor of that step and the zero point `z - 128` holds them, and cuts off where the
quantizer does. Below 8 bits two tensors do it: the first has the quantizer's step and its lower
end, so that what writes it rounds as the quantizer; the second has its range in 255 steps, which
hold every value, since 255 is a multiple of 15 and of 3, and cuts off at its upper end. That a
convolution reads finer steps matters: its bias is rounded to steps of input times weight, and with
15 or 3 of them an activation in a hundred would fall on another step.

At 16 bits `z` is half of the steps, and an int16 tensor of that step and the zero point 0 holds
them all.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf._compat.litert import schema
from bmpq_tf.arithmetic.activations import steps
from bmpq_tf.export.integer import biases
from bmpq_tf.export.integer.ranges import Range, integer_grid
from bmpq_tf.export.tflite import editing, flatbuffer
from bmpq_tf.model.activation_widths import activation_quantizers

_BUILTIN = schema.BuiltinOperator
_INT8_STEPS = steps(8)
# A slope no model has. The converter neither merges markers of different slopes nor fuses them with
# what stands around.
_FIRST_MARK = 4096
# Those of normalisations over features, attention, and activations other than a ReLU.
_BETWEEN = flatbuffer.codes(
    """
    MUL SUB DIV SQUARED_DIFFERENCE BATCH_MATMUL SOFTMAX LOGISTIC TANH RSQRT SQRT EXP GELU HARD_SWISH
    """
)


@dataclasses.dataclass(frozen=True)
class Grid:
    """The values that a quantizer gives.

    Attributes:
        step: between two neighbours.
        zero_point: how many steps lie below zero.
        bits: the width.
    """

    step: float
    zero_point: int
    bits: int

    @property
    def range(self) -> Range:
        """The smallest and the largest value: the ends of the int8 tensor that is read."""
        return -self.zero_point * self.step, (steps(self.bits) - self.zero_point) * self.step

    @property
    def entry(self) -> Range:
        """The range of the int8 tensor that is written first.

        255 of the quantizer's steps from its lower end.
        """
        low, high = self.range
        return low, high if self.bits >= 8 else low + _INT8_STEPS * self.step


def mark(model: keras.Model) -> None:
    """Puts a marker in the place of each activation quantizer of a frozen model.

    A converted file keeps it.
    """
    for number, quantizer in enumerate(activation_quantizers(model)):
        quantizer.stand_in = _Marker(number)


class _Marker:
    def __init__(self, number: int):
        self._slope = -float(_FIRST_MARK + number)

    def __call__(self, values):
        return tf.nn.leaky_relu(values, self._slope)


def place(file, model: keras.Model) -> dict[int, Grid]:
    """Turns each marker of a converted file into a `FAKE_QUANT`, so that the float file computes as
    Keras does.

    Args:
        file: the parsed file of a model that `mark` has changed; changed in place.
        model: that model.

    Returns:
        The grid of each `FAKE_QUANT`'s result, by tensor.
    """
    quantizers = activation_quantizers(model)
    subgraph, found = file.subgraphs[0], {}
    for operator in subgraph.operators:
        if (
            flatbuffer.builtin_of(file, operator) == _BUILTIN.LEAKY_RELU
            and operator.builtinOptions.alpha <= -_FIRST_MARK
        ):
            quantizer = quantizers[int(-operator.builtinOptions.alpha) - _FIRST_MARK]
            step = float(quantizer.clip()) / steps(quantizer.bits)
            grid = Grid(step, quantizer.zero_point, quantizer.bits)
            source, result = operator.inputs[0], operator.outputs[0]
            # A FAKE_QUANT has a step more than a symmetric range, which matters to nothing.
            low, width = grid.range[0], _levels(grid.bits) * grid.step
            low, high = (float(np.float32(end)) for end in (low, low + width))
            options = (
                "FakeQuant",
                {"min": low, "max": high, "numBits": grid.bits, "narrowRange": False},
            )
            editing.become(file, operator, _BUILTIN.FAKE_QUANT, [source], options)
            # As the file has it: float32.
            found[result] = grid_of(operator)
    return found


def _levels(bits: int) -> int:
    """The steps of a `FAKE_QUANT`."""
    return 2**bits - 1


def grid_of(operator) -> Grid:
    """Returns the grid of a `FAKE_QUANT`."""
    options = operator.builtinOptions
    step = (options.max - options.min) / _levels(options.numBits)
    return Grid(step, round(-options.min / step), options.numBits)


def is_mostly_trained(file) -> bool:
    """Whether a parsed integer file has at least as many operators with kernels, which read what a
    quantizer rounded, as operators that compute between quantizers, on grids of calibration.

    What its grids are does not count, so that a wrong one cannot choose its own limit.
    """
    builtins = [
        flatbuffer.builtin_of(file, operator)
        for subgraph in file.subgraphs
        for operator in subgraph.operators
    ]
    kernels = sum(one in biases.OPERAND for one in builtins)
    return kernels >= sum(one in _BETWEEN for one in builtins)


def integer_constant(model, subgraph, index: int, grid, bits: int) -> int:
    """Adds the integer form of a float constant, on a grid of its own or on this one.

    Returns its index.
    """
    tensor = subgraph.tensors[index]
    values = np.asarray(flatbuffer.constant(model, tensor))
    if grid is None:
        grid = integer_grid((min(0.0, float(values.min())), max(0.0, float(values.max()))), bits)
    scale, zero_point = grid
    kind = np.dtype(f"int{bits}")
    limits = np.iinfo(kind)
    integers = np.clip(np.round(values / scale[0]) + zero_point[0], limits.min, limits.max)
    name = f"{flatbuffer.tensor_name(tensor)}_integers_{len(subgraph.tensors)}"
    return editing.add_tensor(
        model,
        subgraph,
        name,
        tensor.shape,
        flatbuffer.ACTIVATIONS[bits],
        integers.astype(kind),
        grid=grid,
    )
