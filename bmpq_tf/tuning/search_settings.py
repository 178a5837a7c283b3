"""What a stored search was started with; another one is not gone on with."""

import hashlib
import json
import pathlib
import warnings
from collections.abc import Collection
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf.allocation.budget import Budget
from bmpq_tf.arguments import plain
from bmpq_tf.files import write_text

FILE = "settings.json"


def check(
    folder: pathlib.Path, told: dict[str, Any], name: str = FILE, newer: Collection[str] = ()
) -> None:
    """Compares the settings of a search with those of the one that the folder has, if any.

    Args:
        folder: of the search.
        told: by name, plain data.
        name: of the file in the folder that has them.
        newer: settings that searches of before did not note; those go on without them.

    Raises:
        ValueError: the search in the folder was started with others.
    """
    told = json.loads(_text(told))
    known = noted(folder, name) or told
    asked = [key for key in told if key in known or key not in newer]
    if different := [key for key in asked if told[key] != known.get(key)]:
        was = ", ".join(f"{key}={known.get(key)!r}" for key in different)
        now = ", ".join(f"{key}={told[key]!r}" for key in different)
        raise ValueError(
            f"The search in '{folder}' is another one. Received: {now}; it was started with {was}. "
            "Give another folder, or the settings that it was started with."
        )


def noted(folder: pathlib.Path, name: str = FILE) -> dict[str, Any]:
    """Returns the settings of the search that the folder has; none where it has no search."""
    file = folder / name
    return json.loads(file.read_text()) if file.exists() else {}


def note(folder: pathlib.Path, told: dict[str, Any], name: str = FILE) -> None:
    """Notes the settings of a search that begins."""
    if not (folder / name).exists():
        write_text(folder / name, _text(told))


def told_budgets(budgets: Any) -> list[str]:
    """Returns budgets as they are said.

    Raises:
        ValueError: they are no list, or empty.
    """
    if isinstance(budgets, (str, Budget, dict)) or not list(budgets):
        raise ValueError(
            "budgets is a list of budgets to choose from, such as ['4x', '8x', '12x']. "
            f"Received: budgets={budgets!r}."
        )
    return [str(budget) for budget in budgets]


def _text(told: dict[str, Any]) -> str:
    return json.dumps({name: plain(value) for name, value in told.items()}, indent=1, default=str)


def fingerprints(model: keras.Model, train: Any, validation: Any) -> dict[str, str]:
    """Returns what tells this model and these data from others."""
    return {
        "model": fingerprint_of_model(model),
        "train": fingerprint_of_data(train),
        "validation": fingerprint_of_data(validation),
    }


def compiled_settings(model: keras.Model) -> dict[str, Any]:
    """Returns what a model was compiled with, the settings of its optimizer one by one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = _unnamed(model.get_compile_config())
    # Whatever a class of the user's does that does not tell its settings.
    except Exception:
        return {}
    # Models that compile in a way of their own have configs of their own.
    optimizer = config.get("optimizer")
    told = {"optimizer": optimizer, "loss": config.get("loss")}
    if isinstance(optimizer, dict):
        told["optimizer"] = optimizer["class_name"]
        told |= {f"optimizer.{name}": value for name, value in optimizer["config"].items()}
    return told


def _unnamed(config: Any) -> Any:
    """Leaves out what differs from process to process: Keras counts objects in names."""
    if isinstance(config, (list, tuple)):
        return [_unnamed(value) for value in config]
    if isinstance(config, dict) and config.get("class_name") == "__lambda__":
        # Its code tells the file that it stands in.
        return "lambda"
    if isinstance(config, dict):
        return {name: _unnamed(value) for name, value in config.items() if name != "name"}
    return config


def fingerprint_of_model(model: keras.Model) -> str:
    """Returns a short text that two models share only if their weights and shapes are the same."""
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(f"{variable.shape} {variable.dtype}".encode())
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return f"{len(model.weights)} weights, {digest.hexdigest()[:12]}"


def fingerprint_of_data(data: Any) -> str:
    """Returns the same of arrays; of a data set what it gives, since reading it may take long."""
    if isinstance(data, tf.data.Dataset):
        shapes = keras.tree.map_structure(
            lambda spec: str(getattr(spec, "shape", spec)), data.element_spec
        )
        return f"data set, {int(data.cardinality())} batches of {shapes}"
    if not isinstance(data, (tuple, list)):
        return type(data).__name__
    digest = hashlib.sha256()
    arrays = [np.ascontiguousarray(array) for array in keras.tree.flatten(data)]
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return f"arrays {[array.shape for array in arrays]}, {digest.hexdigest()[:12]}"
