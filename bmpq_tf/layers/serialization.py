"""Which classes are bmpq_tf's own: those that saved models name as `bmpq_tf>...`."""

from typing import TypeVar

import keras

from bmpq_tf._compat import keras as keras_compat

_Class = TypeVar("_Class", bound=type)
_OURS: set[type] = set()


def serializable(cls: _Class) -> _Class:
    """Registers a class of bmpq_tf with Keras, so that saved models that name it load wherever
    bmpq_tf was imported.
    """
    _OURS.add(cls)
    keras.saving.register_keras_serializable("bmpq_tf")(cls)
    return cls


def is_ours(cls: type) -> bool:
    """Whether a class is one of bmpq_tf's own; a user's subclass of one is not."""
    return cls in _OURS


def is_of_user(layer: keras.layers.Layer) -> bool:
    """Whether a layer's class is neither Keras's nor ours, so that nobody knows what it does."""
    return not (keras_compat.is_from_keras(type(layer)) or is_ours(type(layer)))
