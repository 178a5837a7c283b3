"""Subclasses of Keras's layers that change nothing that matters: a name, a constructor."""

from typing import Any

from bmpq_tf._compat import keras as keras_compat

# What a subclass may say anew and still compute as its parent: how it is made, stored and shown.
_HARMLESS = frozenset(
    (
        *("__init__", "get_config", "from_config", "get_build_config", "build_from_config"),
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__"),
        *("__annotate__", "__annotate_func__", "__firstlineno__", "__static_attributes__"),
        *("__signature__", "__repr__", "__str__", "__orig_bases__", "__parameters__", "__slots__"),
        *("__init_subclass__", "__class_getitem__", "__type_params__", "__annotations_cache__"),
    )
)


def keras_class(layer) -> Any | None:
    """Returns the class of Keras's that a layer computes as; `None` if it computes as none.

    That is its own class, or, for a subclass that changes nothing that matters, the nearest class
    of Keras's that it derives from.
    """
    return None if overridden(layer) else keras_parent(layer)


def config_of_parent(layer) -> dict[str, Any]:
    """Returns the config of a layer as the class that it computes as gives it, or as it does
    itself where there is none.
    """
    parent = keras_class(layer)
    return parent.get_config(layer) if parent else layer.get_config()


def keras_parent(layer) -> type | None:
    """Returns the nearest class of Keras's that a layer is an instance of, or `None`."""
    return next((base for base in type(layer).__mro__ if keras_compat.is_from_keras(base)), None)


def overridden(layer) -> list[str]:
    """Returns what a layer has in place of what the nearest class of Keras's has, by name.

    Methods and attributes of its classes, and methods of its own; what is new in them does not
    count, since nothing of Keras's asks for it.
    """
    parent = keras_parent(layer)
    if parent is None:
        return []
    own = [base for base in type(layer).__mro__ if not issubclass(parent, base)]
    names = {name for base in own for name in vars(base)} - _HARMLESS
    # Keras puts wrapped methods into every layer itself, of these names.
    on_itself = set(vars(layer)) - keras_compat.WRAPPED_METHODS
    methods = {name for name in on_itself if callable(getattr(parent, name, None))}
    return sorted({name for name in names if hasattr(parent, name)} | methods)
