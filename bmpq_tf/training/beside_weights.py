"""What a backup holds beside weights: which variables optimizers had, and random numbers."""

from typing import Any

import keras
import numpy as np

from bmpq_tf._compat import keras_optimizers
from bmpq_tf.training.optimizer_state import optimizers_in


def beside_weights(model: keras.Model) -> dict[str, Any]:
    """What a new process lacks: which variables each optimizer was built for, and the state of the
    random numbers.
    """
    places = {}
    for place, variable in enumerate(model.weights):
        places.update({id(variable): place, id(variable.value): place})
    built = [
        [places.get(id(one)) for one in keras_optimizers.optimizer_variables(optimizer)]
        if optimizer.built
        else []
        for optimizer in optimizers_in(model)
    ]
    states = [np.asarray(state).tolist() for state in random_states(model)]
    return {"optimizers": built, "random": states}


def build_optimizers(model: keras.Model, places: list[list] | None) -> None:
    """Builds optimizers for the variables that they had, as their state is loaded only then."""
    weights, optimizers = model.weights, optimizers_in(model)
    for optimizer, of_one in zip(optimizers, places or (), strict=False):
        if not optimizer.built and of_one and None not in of_one:
            optimizer.build([weights[place] for place in of_one])
    compiled = getattr(model, "optimizer", None)
    # As Keras, whose backups do not say.
    if places is None and compiled is not None and not compiled.built:
        compiled.build(model.trainable_variables)


def random_states(model: keras.Model) -> list[keras.Variable]:
    """Returns the states of the random numbers of layers such as `Dropout`."""
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]
