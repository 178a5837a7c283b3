"""Why a kernel of a quantized model is float."""

from collections.abc import Sequence

import keras

from bmpq_tf.conversion.eligibility import ineligible_layers, own_reason
from bmpq_tf.layers.registry import quantized_entry_for
from bmpq_tf.model import keras_graph
from bmpq_tf.model.kernels import KernelState

_LEFT_OUT = "left out by layers= or exclude="
_NEVER = "the model is not quantized"


def why_float(model: keras.Model, states: Sequence[KernelState]) -> dict[str, str]:
    """Returns, by the path of each kernel without a width, why it has none, as half a sentence."""
    floats = [state for state in states if state.quantizer is None]
    if not floats:
        return {}
    if len(floats) == len(states):
        return {state.kernel.path: _NEVER for state in floats}
    # Nothing is wrong with a quantized layer that holds others.
    inside = {
        id(part)
        for holder in keras_graph.sublayers(model)
        if quantized_entry_for(holder)
        for part in keras_graph.sublayers(holder)
    }
    reasons = ineligible_layers(model)
    return {
        state.kernel.path: (
            own_reason(state.layer) if id(state.layer) in inside else reasons.get(id(state.layer))
        )
        or _LEFT_OUT
        for state in floats
    }
