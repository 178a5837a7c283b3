"""What a copy of a layer is made from: its config, and the functions that a config only names."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.inheritance import keras_class, overridden
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer
from bmpq_tf.layers.serialization import is_of_user
from bmpq_tf.model import keras_graph

Layer = keras.layers.Layer
# What quantized layers hold beside what Keras's do.
STATE = (KernelQuantizer, ActivationQuantizer)


@contextlib.contextmanager
def naming(layer: Layer) -> Iterator[None]:
    """Says which layer it is that Keras cannot copy."""
    if keras_compat.is_from_keras(type(layer)) and (own := overridden(layer)):
        raise TypeError(
            f"Layer '{layer.name}' ({type(layer).__name__}) has its own {', '.join(own)}, set on "
            "the object itself, which a copy would lose. Make it a method of a subclass."
        )
    try:
        yield
    except (NotImplementedError, TypeError) as error:
        if keras_compat.is_from_keras(type(layer)) and isinstance(error, TypeError):
            held = [name for name, one in vars(layer).items() if isinstance(one, functools.partial)]
            if not held:
                raise
            raise TypeError(
                f"Layer '{layer.name}' ({type(layer).__name__}) cannot be copied: its "
                f"{', '.join(held)} is a functools.partial, which no config holds. Make it a "
                "function or a lambda."
            ) from error
        raise TypeError(
            f"Layer '{layer.name}' ({type(layer).__name__}) cannot be copied, as Keras cannot make "
            f"it from its config. Received: {' '.join(str(error).split())[:200]} Give its class a "
            "get_config() that returns all that its constructor takes, as plain numbers and text."
        ) from error


def _is_known(layer) -> bool:
    # Models of a user's class that are graphs are copied as graphs.
    of_keras = not is_of_user(layer) or keras_graph.is_graph(layer)
    return of_keras or keras_class(layer) is not None


def known_parts(layer: Layer) -> list[Layer]:
    """A layer and those inside it, as far as Keras's classes reach.

    One of the user's makes its parts, and functions for them, itself.
    """
    inside = (
        [part for part in keras_compat.layers_inside(layer) if not isinstance(part, STATE)]
        if _is_known(layer)
        else []
    )
    return [
        *([layer] if _is_known(layer) else []),
        *(part for inner in inside for part in known_parts(inner)),
    ]


def _is_own(function) -> bool:
    return inspect.isfunction(function) and not keras_compat.is_from_keras(function)


def with_functions(layer: Layer, config: dict[str, Any]) -> dict[str, Any]:
    """Returns a layer's config with its functions themselves, where it tells their names only."""
    return {**config, **(own_functions(layer, config) if _is_known(layer) else {})}


def own_functions(layer: Layer, config: dict[str, Any]) -> dict[str, Callable]:
    """Functions that are not Keras's, such as activations of the user's, under the keys of a
    layer's config.
    """
    held: dict[str, Any] = {key: getattr(layer, key, None) for key in config}
    return {key: function for key, function in held.items() if _is_own(function)}


def functions_by_name(model: keras.Model) -> dict[str, Callable]:
    """Every function that a layer of a model holds, by its name, so that configs which tell only
    that can be read.
    """
    found: dict[bool, dict[str, Callable]] = {True: {}, False: {}}
    for layer in keras_graph.sublayers(model):
        # Keras wraps methods such as build for each layer, and has no names for lambdas.
        held = [
            value
            for name, value in vars(layer).items()
            if _is_own(value) and not hasattr(type(layer), name)
        ]
        named = found[_is_known(layer)]
        for function in [function for function in held if function.__name__ != "<lambda>"]:
            # Copies of Keras's layers get their functions themselves; others only have the name to
            # go by.
            if named.setdefault(function.__name__, function) is not function and not _is_known(
                layer
            ):
                raise ValueError(
                    "Two functions of layers of your own have one name, so a copy of model "
                    f"'{model.name}' could not tell them apart. "
                    f"Received: {function.__name__!r}, also in layer '{layer.name}'. Give each a "
                    "__name__ of its own."
                )
    return found[True] | found[False]
