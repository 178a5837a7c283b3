"""Loads models that Keras 2 saved, whose configs have keys that layers of Keras 3 do not take."""

import functools
import inspect
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, cast

import keras

from bmpq_tf.conversion import tfmot_files

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

    A model that `tfmot.quantization.keras.quantize_model` made comes back as the plain one inside,
    with the float weights that tfmot trained and without its ranges, so that
    `bmpq_tf.quantize_model` takes it; tfmot itself is not needed.

    Args:
        path: of the file.
        custom_objects: classes and functions of your own that it names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder or no `.h5` file, or a key that Keras 3 took away has a value
            that it cannot do without, such as `time_major=True`.

    Example:
        >>> float_model.save(folder / "old.h5")
        >>> [layer.name for layer in bmpq_tf.load_keras2_model(folder / "old.h5").layers]
        ['image', 'conv', 'flatten', 'head']
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no such file. Received: path='{path}'.")
    if path.is_dir() or path.suffix not in (".h5", ".hdf5"):
        raise ValueError(
            f"Keras 2 models are loaded from .h5 files. Received: path='{path}'. Load it where it "
            "was made, with Keras 2 (one of tfmot's under "
            "tfmot.quantization.keras.quantize_scope()), and save it with model.save('model.h5'); "
            "tfmot's own .keras files do not load there either. keras.models.load_model reads "
            ".keras files of Keras 3."
        )
    classes = {**_layers(), **(custom_objects or {})}
    with tempfile.TemporaryDirectory() as folder:
        if tfmot_files.is_quantized_by_tfmot(path):
            plain = pathlib.Path(folder, path.name)
            tfmot_files.plain_copy(path, plain)
            path = plain
        model = keras.models.load_model(path, compile=False, custom_objects=classes)
    return cast(keras.Model, model)


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
