"""Can a model's widths be decided: is it built and quantized, does it track what they go by?"""

from collections.abc import Sequence

import keras

from bmpq_tf.model.kernels import KernelState, check_built, model_kernels


def checked_kernels(model: keras.Model) -> Sequence[KernelState]:
    """Returns the kernels of a model that a budget is asked of.

    Raises:
        ValueError: it is not built, or has no quantized layers.
    """
    check_built(model)
    states = model_kernels(model)
    if not any(state.quantizer for state in states):
        raise ValueError(
            f"Model '{model.name}' has no quantized layers, so there are no widths to allocate. "
            "Make it with bmpq_tf.quantize_model(model), or build it from bmpq_tf.layers; if it "
            "lies where it cannot be found, name it: BMPQCallback(budget, model=...)."
        )
    return states


def check_tracking(states: Sequence[KernelState], needs_gradients: bool, objective: str) -> None:
    """Raises ValueError if quantized kernels do not track what the widths go by."""
    states = [state for state in states if state.quantizer]
    untracked = [
        state.kernel.path
        for state in states
        if state.is_open and not state.quantized.config.track_sensitivity
    ]
    if untracked and needs_gradients:
        raise ValueError(
            f"These kernels do not track sensitivities: {untracked}. Quantize the model with "
            "config=QuantizationConfig(track_sensitivity=True)."
        )
    coarse = [
        state.kernel.path for state in states if state.quantized.config.track_sensitivity != "joint"
    ]
    if coarse and objective == "joint":
        raise ValueError(
            f"These kernels do not track single weights: {coarse}. Quantize the model with "
            'config=QuantizationConfig(track_sensitivity="joint").'
        )
