"""Keras models of a user's own, whose files may be damaged or another's."""

import os
import subprocess
import sys
import zipfile

import keras
import numpy as np

from bmpq_tf import _compat
from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.conversion.keras2 import load_keras2_model
from bmpq_tf.export.errors import first_line
from bmpq_tf.export.tflite.interpreter import in_rank

_OLD = (".h5", ".hdf5")
_FORMATS = (".keras", *_OLD)
_HINT = (
    "Save it again with model.save(path); a model with classes of your own is loaded in a script, "
    "behind their definitions, and given to bmpq_tf.export_tflite there."
)
# Reading the weights alone; a damaged file may keep HDF5 busy for ever.
_SECONDS = 120
# Keras tells a whole config before, and sometimes behind, what was wrong.
_REASON, _CONFIG = "Exception encountered:", "Full object config:"
_LONGEST = 400


def load_model(path: str | os.PathLike, flag: str = "") -> keras.Model:
    """Loads a model file without running code that it may hold.

    Args:
        path: of a .keras file, or of an .h5 file of older Keras or of tfmot
            (`bmpq_tf.load_keras2_model`).
        flag: what named it, for the messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, is damaged, names classes that are not known, or holds no
            model.
    """
    name = f"{flag}={path}" if flag else f"'{path}'"
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"No such model. Received: {name}. Save one with model.save(path) after training."
        )
    received = f"Received: {name}, {os.path.getsize(path):,} bytes."
    # Keras also saves folders, whose parts it reads itself.
    if not str(path).endswith(_FORMATS) and not os.path.isdir(path):
        raise ValueError(f"A model file ends in {' or '.join(_FORMATS)}. {received} {_HINT}")
    if not os.path.isdir(path) and (damage := _damage(path)):
        raise ValueError(f"The model file is damaged: {damage} {received} {_HINT}")
    try:
        # Keras 2 wrote .h5 files, and tfmot does.
        load = load_keras2_model if str(path).endswith(_OLD) else keras_compat.load_model
        model = load(path)
    # Keras gives on whatever a broken config or other weights lead to.
    except Exception as error:
        raise ValueError(
            f"The model cannot be loaded: {_reason(error)} {received} {_HINT}"
        ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"The file holds no model but a {type(model).__name__}. {received} {_HINT}"
        )
    if not model.built:
        raise ValueError(
            "The model is not built, so its inputs have no shapes and its kernels no values. "
            f"{received} Give it an Input, or call it on a batch, before it is saved."
        )
    return model


def is_classifier(model: keras.Model) -> bool:
    """Whether it takes one array of any number of examples, and answers a value for each class."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        return False
    shape = model.outputs[0].shape
    return model.inputs[0].shape[0] is None and len(shape) == 2 and (shape[1] or 0) > 1


def check_classifier(model: keras.Model, labels: np.ndarray) -> None:
    """Raises ValueError for a model that is no classifier, or has no output for a label."""
    if not is_classifier(model):
        raise ValueError(
            "Searches are for classifiers: models of one input, and one output of a value for each "
            f"class. Received: outputs of shape {[tuple(one.shape) for one in model.outputs]}. "
            "bmpq_tf.smallest_budget searches for any model that is compiled."
        )
    check_labels(labels, model.outputs[0].shape[1])


def check_labels(labels: np.ndarray, classes: int) -> None:
    """Raises ValueError for labels of classes that a model or a file has no output for."""
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"Labels count from 0 to {classes - 1}, as the model has outputs for. Received: labels "
            f"from {labels.min()} to {labels.max()}."
        )


def fitting(images: np.ndarray, model: keras.Model, flag: str) -> np.ndarray:
    """Returns images in the rank that a model of one input takes.

    Raises:
        ValueError: they are of another size. `flag` named them.
    """
    wanted = tuple(model.inputs[0].shape)
    images = in_rank(images, wanted)
    if images.ndim != len(wanted) or any(
        size not in (None, have) for size, have in zip(wanted[1:], images.shape[1:], strict=True)
    ):
        raise ValueError(
            f"The images of {flag} are not what the model takes. Received: {images.shape}, and the "
            f"model takes {wanted}."
        )
    return images


def _damage(path: str | os.PathLike) -> str | None:
    """What is wrong with the file as a file, in a sentence."""
    if str(path).endswith(".keras"):
        try:
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
        # Also what zlib raises, and what is not implemented in zipfile.
        except Exception as error:
            return first_line(error)
        if broken is not None:
            return f"the checksum of its part '{broken}' is another."
    return _damage_of_weights(path)


def _damage_of_weights(path: str | os.PathLike) -> str | None:
    """Reads the weights in a process of its own: a damaged file may crash HDF5, or keep it busy."""
    # -P: the modules beside it would be imported in place of the libraries of their names.
    program = os.path.join(os.path.dirname(_compat.__file__), "hdf5_trial.py")
    try:
        done = subprocess.run(
            [sys.executable, "-P", program, os.fspath(path)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"its weights were not read within {_SECONDS} seconds."
    if done.returncode == 0:
        return done.stdout.strip() or None
    return "reading its weights ends the process that does it."


def _reason(error: Exception) -> str:
    text = str(error).rpartition(_REASON)[2].partition(_CONFIG)[0].strip() or repr(error)
    # The line of Keras that says something; the first may only count.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = " ".join(lines[:2])
    told = told if len(told) <= _LONGEST else told[:_LONGEST].rsplit(" ", 1)[0] + " ..."
    return told.rstrip(".") + "."
