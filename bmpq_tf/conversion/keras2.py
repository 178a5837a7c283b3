"""Loads models that Keras 2 saved, whose configs have keys that layers of Keras 3 do not take."""

import functools
import inspect
import os
import pathlib
from collections.abc import Mapping
from typing import Any, cast

import keras

# What Keras 2 wrote into configs and Keras 3 took away, with the only value that means the same.
_DROPPED: dict[str, Any] = {"groups": 1, "time_major": False}
# Such keys that only told how or for which shapes a layer computes.
_WITHOUT_MEANING = ("implementation", "query_shape", "key_shape", "value_shape")


def load_keras2_model(
    path: str | os.PathLike, custom_objects: Mapping[str, Any] | None = None
) -> keras.Model:
    """Loads an `.h5` file that Keras 2 wrote as a model of Keras 3's own layers.

    `keras.models.load_model` refuses such a file where a layer's config has a key that Keras 3 took
    away, such as `groups=1` of `DepthwiseConv2D`. Here the key is left out where its value changes
    nothing. The model comes back without loss and optimizer.

    Args:
        path: of the file.
        custom_objects: classes and functions of your own that it names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no `.h5` file, or a key that Keras 3 took away has a value that it cannot
            do without, such as `time_major=True`.

    Example:
        >>> float_model.save(folder / "old.h5")
        >>> [layer.name for layer in bmpq_tf.load_keras2_model(folder / "old.h5").layers]
        ['image', 'conv', 'flatten', 'head']
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no such file. Received: path='{path}'.")
    if path.suffix not in (".h5", ".hdf5"):
        raise ValueError(
            f"Keras 2 models are loaded from .h5 files. Received: path='{path}'. Save it with "
            "model.save('model.h5') in Keras 2; keras.models.load_model reads .keras files."
        )
    return cast(
        keras.Model,
        keras.models.load_model(
            path, compile=False, custom_objects={**_layers(), **(custom_objects or {})}
        ),
    )


@functools.cache
def _layers() -> dict[str, type]:
    """For each layer class of Keras's one of its name that makes it from a config of Keras 2."""
    return {
        name: type(name, (_FromKeras2,), {"layer_class": value})
        for name, value in vars(keras.layers).items()
        if isinstance(value, type) and issubclass(value, keras.layers.Layer)
    }


class _FromKeras2:
    layer_class: type[keras.layers.Layer]

    @classmethod
    def from_config(cls, config):
        known = inspect.signature(cls.layer_class.__init__).parameters
        kept = {
            key: value
            for key, value in config.items()
            if key in known or (key not in _DROPPED and key not in _WITHOUT_MEANING)
        }
        lost = {key: config[key] for key in _DROPPED if key in config and key not in kept}
        for key, value in lost.items():
            if value != _DROPPED[key]:
                raise ValueError(
                    f"{cls.layer_class.__name__} of Keras 3 has no {key}, which layer "
                    f"'{config.get('name')}' needs. Received: {key}={value!r}. Build that layer "
                    "from others, and give the model its weights."
                )
        return cls.layer_class.from_config(kept)
