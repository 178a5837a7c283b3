"""What neither a copy of a model nor layers that are changed in place can follow."""

import inspect
from collections.abc import Iterator

import keras
import tensorflow as tf

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.layers.serialization import is_of_user
from bmpq_tf.model import keras_graph


def is_traced(layer: keras.layers.Layer) -> bool:
    """Whether a layer's `call` is a `tf.function`, which keeps what it traced before."""
    return isinstance(type(layer).call, tf.types.experimental.PolymorphicFunction)


def check_traced(model: keras.Model) -> None:
    """Raises ValueError for a class of the user's whose `call` is a `tf.function`: what was traced
    before would go on without rounding.
    """
    for part in keras_compat.flattened_layers(model):
        if is_traced(part) and is_of_user(part) and keras_compat.layers_inside(part):
            raise ValueError(
                f"The call of '{part.name}' ({type(part).__name__}) is a tf.function, and what it "
                "traced before would go on computing without rounding. Take the decorator off; fit "
                "traces it."
            )


def check_reads(model: keras.Model) -> None:
    """Raises ValueError where a functional model's operation reads a weight of one of its layers,
    since a copy's would go on reading the original's.
    """
    owners = {
        id(variable): layer
        for layer in keras_compat.flattened_layers(model)
        for variable in keras_compat.own_variables(layer)
    }
    for operation, variable in _reads(model):
        if id(variable) in owners:
            raise ValueError(
                f"'{operation.name}' ({type(operation).__name__}) of model '{model.name}' reads a "
                f"weight of layer '{owners[id(variable)].name}' itself, and a copy of it would go "
                "on reading the original's. Put both into a layer of your own, or make the model "
                "a subclass of keras.Model, which is quantized in place."
            )


def _reads(model: keras.Model) -> Iterator[tuple]:
    """Yields the operations of a graph with the variables that they read beside tensors."""
    for node in keras_compat.nodes_in_order(model):
        if (inner := keras_graph.graph_inside(node.operation)) is not None:
            yield from _reads(inner)
            continue
        given = [node.arguments.args, node.arguments.kwargs]
        if type(node.operation) is keras.layers.Lambda:
            held = _referred(node.operation.function)
            layers = [one for one in held if isinstance(one, keras.layers.Layer)]
            parts = [part for layer in layers for part in keras_compat.flattened_layers(layer)]
            given += [held, [keras_compat.own_variables(part) for part in parts]]
        for one in keras.tree.flatten(given):
            if isinstance(one, keras.Variable):
                yield node.operation, one


def _referred(function) -> list:
    """What a function refers to beside its arguments: in its closure, and by global names."""
    try:
        found = inspect.getclosurevars(getattr(function, "func", function))  # Of a partial.
    # No Python function, or a name that has no value yet.
    except (TypeError, ValueError):
        return []
    return [*found.nonlocals.values(), *found.globals.values()]
