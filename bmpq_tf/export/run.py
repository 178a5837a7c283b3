"""`run_tflite`: the answers of any file that `export_tflite` writes."""

import os
import pathlib

import numpy as np

from bmpq_tf.export.micro.runtime import MicroModel, runtime_of
from bmpq_tf.export.tflite.interpreter import TFLiteModel, in_rank


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

    Example:
        >>> report = bmpq_tf.export_tflite(model, folder / "model.tflite")
        >>> (logits,) = bmpq_tf.run_tflite(report.path, images)
        >>> logits.shape, np.allclose(logits, model(images), atol=1e-4)
        ((32, 10), True)
    """
    content = (
        bytes(path) if isinstance(path, (bytes, bytearray)) else pathlib.Path(path).read_bytes()
    )
    model = _loaded(content)
    arrays = [
        np.asarray(array) for array in (inputs if isinstance(inputs, (list, tuple)) else [inputs])
    ]
    arrays = [
        in_rank(array, detail.get("shape_signature", detail["shape"]))
        for array, detail in zip(arrays, model.inputs, strict=True)
    ]
    parts = [
        model([array[start : start + batch_size] for array in arrays])
        for start in range(0, len(arrays[0]), batch_size)
    ]
    return [np.concatenate(output) for output in zip(*parts, strict=True)]


def _loaded(content: bytes) -> TFLiteModel | MicroModel:
    try:
        runtime = runtime_of(content)
    # A broken file; LiteRT says what is wrong with it.
    except Exception:
        runtime = TFLiteModel
    return runtime(content)
