"""Takes the wrappers of tfmot (TensorFlow's Model Optimization Toolkit) out of an `.h5` file: what
is left is the plain Keras 2 model with the float weights that were trained.
"""

import json
import pathlib
import shutil
from typing import Any

import h5py

# What `tfmot.quantization.keras.quantize_model` puts around layers, and at the inputs.
_WRAPPERS = ("QuantizeWrapper", "QuantizeWrapperV2")
_AT_INPUTS = "QuantizeLayer"
_ROUNDED, _NOTHING = "QuantizeAwareActivation", "NoOpActivation"
# Weights of the wrappers end so: ranges, and a count of steps.
_RANGES = ("_min:0", "_max:0", "optimizer_step:0")


def is_quantized_by_tfmot(path: pathlib.Path) -> bool:
    """Returns whether an `.h5` file holds a model with tfmot's wrappers."""
    return any(f'"class_name": "{name}"' in _config(path) for name in (*_WRAPPERS, _AT_INPUTS))


def plain_copy(path: pathlib.Path, target: pathlib.Path) -> None:
    """Writes an `.h5` file of the plain layers, under the names that they have inside tfmot's.

    Args:
        path: of a file that `is_quantized_by_tfmot`.
        target: where to write.
    """
    shutil.copyfile(path, target)
    with h5py.File(target, "r+") as file:
        file.attrs["model_config"] = json.dumps(_plain(json.loads(_config(path))))
        weights: Any = file["model_weights"]
        for group in weights.values():
            names = [_text(name) for name in group.attrs.get("weight_names", ())]
            kept = [name for name in names if not name.endswith(_RANGES)]
            if kept != names:
                group.attrs["weight_names"] = [name.encode() for name in kept]


def _config(path: pathlib.Path) -> str:
    with h5py.File(path, "r") as file:
        return _text(file.attrs.get("model_config", ""))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _plain(config: Any) -> Any:
    """Returns a config, or a part of one, with what the wrappers hold in their place."""
    if isinstance(config, list):
        return [_plain(part) for part in config]
    if not isinstance(config, dict):
        return config
    kind = str(config.get("class_name")).rpartition(">")[2]
    inside: Any = config.get("config")
    if kind in _WRAPPERS:
        # Under the wrapper's name, by which the model's graph and its weights go.
        layer = {**inside["layer"]["config"], "name": inside["name"]}
        return {**config, "class_name": inside["layer"]["class_name"], "config": _plain(layer)}
    if kind == _AT_INPUTS:
        identity = {"name": inside["name"], "activation": "linear"}
        return {**config, "class_name": "Activation", "config": identity}
    if kind == _ROUNDED:
        return _plain(inside["activation"])
    if kind == _NOTHING:
        return "linear"
    return {key: _plain(value) for key, value in config.items()}
