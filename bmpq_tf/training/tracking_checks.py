"""Do the quantizers sum up what a decision needs, and without the loss scale?"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from bmpq_tf.model.kernels import KernelState


def check_tracking(states: Sequence[KernelState], needs_gradients: bool, objective: str) -> None:
    """Raises ValueError if quantized kernels do not track what the widths go by."""
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


def divide_out_loss_scale(model: keras.Model, states: Sequence[KernelState]) -> None:
    """Tells the quantizers what the optimizer multiplies the loss by.

    A step traced without that is traced anew.

    Raises:
        ValueError: the model has no optimizer.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError(
            f"Model '{model.name}' has no optimizer, whose loss scale and slots belong to "
            "the widths. "
            "Call model.compile(optimizer) first, in a loop of your own too, and take "
            "model.optimizer there."
        )
    one = tf.ones(())
    is_scaled = optimizer.scale_loss(one) is not one
    stale = [
        state.quantizer.follow_loss_scale(optimizer if is_scaled else None)
        for state in states
        if state.quantizer
    ]
    if any(stale) and model.train_function is not None:
        model.make_train_function(force=True)
