"""What models have beside their graphs: attributes, which Keras's copies lose."""

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from bmpq_tf.wording import listed

_PLAIN = (bool, int, float, str, type(None))
# What `fit` sets.
_OF_FIT = ("history",)


def carry(model: keras.Model, copy: keras.Model) -> None:
    """Gives a copy the numbers, texts and truth values that were set on a model, or by its class's
    constructor.
    """
    theirs = vars(copy)
    for name, value in _own(model):
        if _is_plain(value) and _is_plain(theirs.get(name)):
            setattr(copy, name, value)


def warn_of_lost(model: keras.Model, copy: keras.Model) -> None:
    """Warns of attributes of a model that its copy lacks."""
    lost = [
        f"'{name}' ({type(value).__name__})"
        for name, value in _own(model)
        if value is not None and vars(copy).get(name) is None
    ]
    if lost:
        warnings.warn(
            f"The copy of model '{model.name}' lacks attributes that were set on it: "
            f"{listed(lost)}. Set them on the copy, but for those that compile sets.",
            stacklevel=3,
        )


def _own(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """The public attributes that Keras has not set."""
    for name, value in vars(model).items():
        if not name.startswith("_") and name not in _keras_names():
            yield name, value


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


@functools.cache
def _keras_names() -> frozenset[str]:
    """What every functional or sequential model has."""
    inputs = keras.Input((1,))
    plain = keras.Model(inputs, keras.layers.Identity()(inputs))
    plain.compile()
    return frozenset(vars(plain)) | frozenset(vars(keras.Sequential())) | frozenset(_OF_FIT)
