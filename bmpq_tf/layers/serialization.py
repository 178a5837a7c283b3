"""Which classes are bmpq_tf's own: those that saved models name as `bmpq_tf>...`."""

import keras

_OURS: set[type] = set()


def serializable(cls: type) -> type:
    """Registers a class of bmpq_tf with Keras, so that saved models that name it load wherever
    bmpq_tf was imported.
    """
    _OURS.add(cls)
    return keras.saving.register_keras_serializable("bmpq_tf")(cls)


def is_ours(cls: type) -> bool:
    """Whether a class is one of bmpq_tf's own; a user's subclass of one is not."""
    return cls in _OURS
