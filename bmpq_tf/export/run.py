"""The answers of any file that `export_tflite` writes, and how far they are from a model's."""

import contextlib
import os
import pathlib

import keras
import numpy as np

from bmpq_tf.arguments import check_known
from bmpq_tf.conversion.freeze import in_float32
from bmpq_tf.export.integer import integer_inputs
from bmpq_tf.export.kernels.storage import MODES
from bmpq_tf.export.micro.runtime import MicroModel, runtime_of
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.interpreter import TFLiteModel, answers_of, arrays_for
from bmpq_tf.export.verification.comparison import compare
from bmpq_tf.export.verification.parity import Parity
from bmpq_tf.model import graph_view, keras_graph


def run_tflite(path: "str | os.PathLike | bytes", inputs, batch_size: int = 32) -> list[np.ndarray]:
    """Returns a file's outputs for all of the inputs: in LiteRT, with XNNPACK; in TFLM where the
    file is for it, as those of `optimize_for="micro"` are.

    Args:
        path: of the `.tflite` file, or its content.
        inputs: an array of examples, or one array for each of the file's inputs.
        batch_size: examples at once; a file of a fixed batch size has its own.

    Returns:
        One array for each of the file's outputs; int8 outputs as the floats that they stand for.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: the file is for TFLM, and the extra `micro` is not installed.
        RuntimeError: the runtime cannot read or run it.
        ValueError: there are no examples, or more or fewer arrays than inputs.

    Example:
        >>> report = bmpq_tf.export_tflite(model, folder / "model.tflite")
        >>> (logits,) = bmpq_tf.run_tflite(report.path, images)
        >>> logits.shape, np.allclose(logits, model(images), atol=1e-4)
        ((32, 10), True)
    """
    content = _content(path)
    model = _runtime(content)(content)
    arrays = arrays_for(model.inputs, inputs)
    if not len(arrays[0]):
        raise ValueError(
            "There are no examples to run the file on. Received: inputs of shape "
            f"{arrays[0].shape}. Give at least one."
        )
    return answers_of(
        model,
        (
            [array[start : start + batch_size] for array in arrays]
            for start in range(0, len(arrays[0]), batch_size)
        ),
    )


def compare_tflite(
    model: keras.Model,
    path: "str | os.PathLike | bytes",
    inputs=None,
    *,
    optimize_for: str = "size",
) -> Parity:
    """Compares a `.tflite` file's answers with a Keras model's.

    What `export_tflite` does before it writes.

    Args:
        model: the Keras model.
        path: of the file, or its content.
        inputs: as `export_tflite` takes `verify_with`; random ones by default.
        optimize_for: the kind of file, which sets what counts as close. Files of `"micro"` are run
            in TFLM and judged as those of `"integer"` are.

    Returns:
        A `Parity`; its `holds` says whether the file answers as the model does, its `problem` what
        does not.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: the file is for TFLM, and the extra `micro` is not installed.
        RuntimeError: the runtime cannot read or run it.
        ValueError: this is no TFLite file; the inputs do not fit the model, or there are none; or
            the kind is unknown.

    Example:
        >>> report = bmpq_tf.export_tflite(model, folder / "model.tflite")
        >>> bmpq_tf.compare_tflite(model, report.path, images).holds
        True
        >>> bmpq_tf.compare_tflite(float_model, report.path, images).holds
        False
    """
    check_known("optimize_for", optimize_for, MODES)
    content = _content(path)
    kind = "integer" if optimize_for == "micro" else optimize_for
    graph = graph_view.as_graph(model, data=inputs)
    quantized = keras_graph.quantized_layers(graph)
    with in_float32(graph) if quantized else contextlib.nullcontext(graph) as computed:
        return compare(
            computed,
            content,
            inputs,
            kind,
            runtime=_runtime(content),
            activation_bits=16 if _is_wide(content) else None,
        )


def _content(path: "str | os.PathLike | bytes") -> bytes:
    if isinstance(path, (bytes, bytearray)):
        return bytes(path)
    return pathlib.Path(path).read_bytes()


def _is_wide(content: bytes) -> bool:
    """Whether activations have 16 bits."""
    try:
        return flatbuffer.INT16 in integer_inputs.activation_types(flatbuffer.parse(content))
    # A broken file; LiteRT says what is wrong with it.
    except Exception:
        return False


def _runtime(content: bytes) -> type[TFLiteModel] | type[MicroModel]:
    """What runs a file."""
    try:
        return runtime_of(content)
    # A broken file; LiteRT says what is wrong with it.
    except Exception:
        return TFLiteModel
