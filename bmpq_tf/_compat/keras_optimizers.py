"""What Keras's optimizers keep of their variables, as of Keras 3.15; tested as `keras.py` is."""

import keras
import numpy as np


def optimizer_variables(optimizer) -> list[keras.Variable]:
    """Returns the variables that a built optimizer trains.

    Those of the inner one where it scales the loss.
    """
    return inner_optimizer(optimizer)._trainable_variables


def inner_optimizer(optimizer):
    """Returns the optimizer itself, or the one that a `LossScaleOptimizer` wraps."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def place_in(optimizer, variable) -> int | None:
    """Returns which of an optimizer's variables this one is, Keras's or TensorFlow's inside it;
    `None` for one that it was not built for.
    """
    inner = inner_optimizer(optimizer)
    return inner._trainable_variables_indices.get(inner._var_key(variable))


def progress(optimizer) -> tuple:
    """Returns what every step of an optimizer changes: its steps, and of one that scales the loss
    the scale and what counts towards the next.
    """
    scaling = [getattr(optimizer, name, None) for name in ("dynamic_scale", "step_counter")]
    counted = [inner_optimizer(optimizer)._iterations, *scaling]
    return tuple(
        None if one is None else np.asarray(keras.ops.convert_to_tensor(one)).item()
        for one in counted
    )


def slot_prefix(variable) -> str:
    """Returns what the names of a variable's slots begin with."""
    path = getattr(variable, "path", None)
    named = str(variable.name).replace(":", "_") if path is None else path
    return named.replace("/", "_")


def factored_slots(optimizer, place: int) -> list[keras.Variable]:
    """Returns Adafactor's row and column factors of the variable at a place.

    None for other optimizers.
    """
    slots = [getattr(inner_optimizer(optimizer), name, None) for name in ("_r", "_c")]
    return [of_all[place] for of_all in slots if of_all]
