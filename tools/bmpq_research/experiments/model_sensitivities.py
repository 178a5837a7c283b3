"""Sensitivities that need the trained model beside its measurements (METHOD.md, "Controls")."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf import Measurement, estimate_costs
from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.arithmetic import scales
from bmpq_tf.model import keras_graph
from bmpq_tf.model.kernels import KernelState, model_kernels


class StepSizes:
    """A sensitivity for `BMPQCallback`: the sizes of the quantizers' steps.

    After LIMPQ (Tang et al., ECCV 2022): the cost of a width is the step that training has learned,
    however many weights a kernel has. LIMPQ learns a step at every width in one run; here one is
    learned, at the present width, and those of other widths stand in the ratio that the scale rule
    gives them.

    Args:
        model: the quantized model that the callback trains.
    """

    objective = "first_order"

    def __init__(self, model: keras.Model):
        self.model = model

    def __call__(self, measured: Sequence[Measurement]) -> dict[str, list[float]]:
        states = _states(self.model)
        return {one.path: self._costs(one, states[one.path]) for one in measured}

    def _costs(self, measured: Measurement, state: KernelState) -> list[float]:
        learned = float(np.mean(state.quantized.scale(state.variable.value)))
        # Scales are of half steps there.
        if state.bits == 2 and measured.two_bit_levels == "symmetric":
            learned *= 2.0
        at_width = [_by_rule(measured, bits) for bits in measured.candidates]
        gain = learned / _by_rule(measured, state.bits)
        return np.maximum.accumulate((gain * np.array(at_width))[::-1])[::-1].tolist()


def _by_rule(measured: Measurement, bits: int) -> float:
    weights = tf.convert_to_tensor(measured.weights / measured.deviation, tf.float32)
    rule = scales.RULES[measured.rule](
        weights, bits, measured.channel_axes, measured.two_bit_levels
    )
    return float(np.mean(measured.deviation * rule))


class UncolouredSquares:
    """A sensitivity for `BMPQCallback`: squared gradients with less of the present width's colour.

    Behind a kernel that BatchNormalization follows the loss does not change with the kernel's
    length, so gradients go by its inverse; and where a kernel comes to 2 bits, rounding makes it
    longer by about a fifth. Squared gradients are taken times `sum Q(w)^2 / sum w^2`, as if
    rounding had left the length. What else a width does to gradients stays.

    Args:
        model: the quantized model that the callback trains, functional or sequential.
    """

    objective = "squared"

    def __init__(self, model: keras.Model):
        self.model = model
        self.normalised = normalised_behind(model)

    def __call__(self, measured: Sequence[Measurement]) -> dict[str, list[float]]:
        states = _states(self.model)
        return {
            one.path: [
                self._stretch(states[one.path]) * cost
                for cost in estimate_costs(one, one.candidates, "squared")
            ]
            for one in measured
        }

    def _stretch(self, state: KernelState) -> float:
        if state.layer.name not in self.normalised:
            return 1.0
        quantizer, kernel = state.quantized, state.variable.value
        integers = quantizer.integers(kernel) * quantizer.scale(kernel)
        weights = quantizer.quantized_from(kernel)
        return float(tf.reduce_sum(tf.square(integers)) / tf.reduce_sum(tf.square(weights)))


def normalised_behind(model: keras.Model) -> set[str]:
    """Returns the names of the quantized layers whose answers BatchNormalization alone reads."""
    found = set()
    for layer in keras_graph.quantized_layers(model):
        readers = [node.operation for node in keras_compat.calls_after(layer)]
        if readers and all(isinstance(one, keras.layers.BatchNormalization) for one in readers):
            found.add(layer.name)
    return found


def _states(model: keras.Model) -> dict[str, KernelState]:
    return {state.kernel.path: state for state in model_kernels(model) if state.quantizer}
