"""Which optimizers there are in a model, and what they remember of single variables."""

import collections
from collections.abc import Iterator

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf._compat import keras_optimizers


def optimizers_in(*models: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Returns the optimizers that models and the models inside them were compiled with or hold as
    attributes, in lists and dicts too, each once.

    One that another of them wraps is not told of by itself.
    """
    found: dict[int, keras.optimizers.Optimizer] = {}
    for model in models:
        for part in keras_compat.flattened_layers(model):
            if isinstance(part, keras.Model):
                found.update((id(one), one) for one in _held(vars(part)))
    wrapped = {
        id(inner) for one in found.values() for inner in _without_wrappers(one) if inner is not one
    }
    return [one for one in found.values() if id(one) not in wrapped]


def trains(optimizer: keras.optimizers.Optimizer, variable) -> bool:
    """Whether an optimizer was built for a variable."""
    return any(
        keras_optimizers.place_in(one, variable) is not None for one in _without_wrappers(optimizer)
    )


def reset_slots(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> None:
    """Takes what an optimizer remembers of a variable, such as its momentum, back to where it
    began, by Keras's naming of slots.

    Nothing of a variable that it does not train.
    """
    for inner in _without_wrappers(optimizer):
        place = keras_optimizers.place_in(inner, variable)
        if place is not None:
            _reset_slots(inner, place)


def _reset_slots(optimizer: keras.optimizers.Optimizer, place: int) -> None:
    """Starts the slots of one of an optimizer's variables anew."""
    trained = keras_optimizers.optimizer_variables(optimizer)
    name = keras_optimizers.slot_prefix(trained[place])
    # Variables may share that, as in nested models; the optimizer makes their slots in the order of
    # its variables.
    alike = [at for at, other in enumerate(trained) if keras_optimizers.slot_prefix(other) == name]
    slots = collections.defaultdict(list)
    for slot in optimizer.variables:
        if slot.name.startswith(f"{name}_"):
            slots[slot.name].append(slot)
    for kind, of_one_kind in slots.items():
        # Ftrl and Adagrad divide by what has accumulated.
        start = (
            getattr(optimizer, "initial_accumulator_value", 0.0)
            if kind == f"{name}_accumulator"
            else 0.0
        )
        for at, slot in zip(alike, of_one_kind, strict=True):
            if at == place:
                slot.assign(keras.ops.full_like(slot, start))
    # Adafactor's factors are called as the variable.
    for factor in keras_optimizers.factored_slots(optimizer, place):
        factor.assign(keras.ops.zeros_like(factor))


def _without_wrappers(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """The optimizers that keep slots: those that a `LossScaleOptimizer` or a `MultiOptimizer`
    wraps, or the optimizer itself.
    """
    inner = keras_optimizers.inner_optimizer(optimizer)
    if inner is not optimizer:
        return _without_wrappers(inner)
    return list(getattr(optimizer, "optimizers", ())) or [optimizer]


def _held(value) -> Iterator[keras.optimizers.Optimizer]:
    """The optimizers in an attribute, or in the containers that it may be."""
    if isinstance(value, keras.optimizers.Optimizer):
        yield value
    elif isinstance(value, dict):
        yield from _held(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for one in value:
            if isinstance(one, (keras.optimizers.Optimizer, dict, list, tuple)):
                yield from _held(one)
