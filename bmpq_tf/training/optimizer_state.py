"""What an optimizer remembers of single variables."""

import collections

import keras

from bmpq_tf._compat import keras as keras_compat


def reset_slots(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> None:
    """Takes what an optimizer remembers of a variable, such as its momentum, back to where it
    began, by Keras's naming of slots.
    """
    name = variable.path.replace("/", "_")
    # Variables may share that, as in nested models; the optimizer makes their slots in the order of
    # its variables.
    inner, trained = (
        keras_compat.inner_optimizer(optimizer),
        keras_compat.optimizer_variables(optimizer),
    )
    alike = [other for other in trained if other.path.replace("/", "_") == name]
    slots = collections.defaultdict(list)
    for slot in optimizer.variables:
        if slot.name.startswith(f"{name}_"):
            slots[slot.name].append(slot)
    for kind, of_one_kind in slots.items():
        # Ftrl and Adagrad divide by what has accumulated.
        start = (
            getattr(inner, "initial_accumulator_value", 0.0)
            if kind == f"{name}_accumulator"
            else 0.0
        )
        for owner, slot in zip(alike, of_one_kind, strict=True):
            if owner is variable:
                slot.assign(keras.ops.full_like(slot, start))
    # Adafactor's factors are called as the variable.
    place = next((place for place, other in enumerate(trained) if other is variable), None)
    for factor in keras_compat.factored_slots(optimizer, place) if place is not None else []:
        factor.assign(keras.ops.zeros_like(factor))
