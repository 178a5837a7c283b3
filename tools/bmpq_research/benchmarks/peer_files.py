"""What a user would take instead: post-training quantization of the same float weights.

And how it and our files are judged.
"""

import contextlib
import io
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from litert_quantizer import quantizer, recipe

from bmpq_tf.export.converter.convert import to_float_tflite
from bmpq_tf.export.errors import ExportError
from bmpq_tf.export.kernels.storage import LITERT_MODES
from bmpq_tf.export.pipeline import export_tflite
from bmpq_tf.export.report import zipped_size
from bmpq_tf.export.run import run_tflite
from bmpq_tf.model import keras_graph

BASE = "litert-quantizer, dynamic int8"
_AT_ONCE = 50

# Runs in a process of its own that has nothing but LiteRT; prints the growth of its peak memory in
# kilobytes.
_MEMORY = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter

def peak():
    # getrusage would tell the parent's peak: it survives the start of a program.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

before = peak()
interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
for detail in interpreter.get_input_details():
    interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
interpreter.invoke()
print(peak() - before)
"""


def peer_files(plain: keras.Model, examples: Sequence[np.ndarray]) -> dict[str, bytes]:
    """Returns files by name: float32, litert-quantizer's dynamic int8 and int4, and the TFLite
    converter's static int8.

    Args:
        plain: a float model of plain Keras layers.
        examples: of its inputs, to calibrate with.
    """
    floats = to_float_tflite(plain)
    return {
        "float32": floats,
        BASE: litert_quantizer_file(floats, recipe.dynamic_wi8_afp32()),
        "litert-quantizer, dynamic int4": litert_quantizer_file(floats, recipe.dynamic_wi4_afp32()),
        "TFLite converter, static int8": converter_file(plain, examples),
    }


def our_files(
    model: keras.Model, images: np.ndarray, calibration: np.ndarray
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Returns our file of every kind by name, and for a kind that this model has no file of, why.

    Args:
        model: a quantized model of one input.
        images: to verify on.
        calibration: images for `"integer"`.
    """
    files, problems = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for mode in LITERT_MODES:
            path = pathlib.Path(folder) / f"{mode}.tflite"
            try:
                export_tflite(
                    model,
                    path,
                    optimize_for=mode,
                    verify_with=images,
                    calibrate_with=calibration if mode == "integer" else None,
                )
                files[f'bmpq_tf, "{mode}"'] = path.read_bytes()
            except ExportError as error:
                problems[f'bmpq_tf, "{mode}"'] = str(error)
    return files, problems


def float_twin(path: str | os.PathLike, model: keras.Model) -> keras.Model:
    """Loads the float model that a quantized one is compared with.

    Raises:
        ValueError: it is quantized itself, or takes or gives something else than `model`.
    """
    plain = keras.models.load_model(path, compile=False)
    if keras_graph.quantized_layers(plain):
        raise ValueError(
            f"The float model is quantized. Received: '{path}'. Give the float.keras that "
            "tools/train.py --with_float writes."
        )
    shapes, wanted = (
        [tuple(tensor.shape) for tensor in [*one.inputs, *one.outputs]] for one in (plain, model)
    )
    if shapes != wanted:
        raise ValueError(
            "The float model takes or gives other shapes than the quantized one. Received: "
            f"'{path}' with {shapes}; wanted {wanted}."
        )
    return plain


def answers(content: bytes, images: np.ndarray) -> np.ndarray:
    """Returns a file's first output for images."""
    return run_tflite(content, images, _AT_ONCE)[0]


def keras_outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns a Keras model's first output for images."""
    parts = [
        model(images[start : start + _AT_ONCE], training=False)
        for start in range(0, len(images), _AT_ONCE)
    ]
    return np.concatenate([np.asarray(keras.tree.flatten(part)[0], np.float32) for part in parts])


def judged(
    outputs: np.ndarray, expected: np.ndarray, labels: np.ndarray | None
) -> dict[str, float]:
    """Returns the share of examples whose top-1 is that of the float model's outputs `expected`,
    and is the label, where there are labels.
    """
    top = outputs.argmax(-1)
    return {"agreement": float(np.mean(top == expected.argmax(-1)))} | (
        {} if labels is None else {"accuracy": float(np.mean(top == labels))}
    )


def figures(
    files: Mapping[str, bytes],
    plain: keras.Model,
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray | None,
) -> dict[str, dict]:
    """Returns sizes in bytes, growth of memory in kilobytes and quality of each file by name.

    `agreement` and `accuracy` are shares (`judged`); `rms` is the root mean square of the
    differences from the outputs of the Keras model that the file was made of (`model` for ours,
    `plain` for the others), relative to theirs; `size` is relative to `BASE`.
    """
    expected, quantized = keras_outputs(plain, images), keras_outputs(model, images)
    told = {}
    for name, content in files.items():
        received = answers(content, images)
        source = quantized if name.startswith("bmpq_tf") else expected
        told[name] = {
            "bytes": len(content),
            "size": len(content) / len(files[BASE]),
            "zipped_bytes": zipped_size(content),
            "peak_kb": peak_memory(content),
            "rms": float(
                np.sqrt(np.mean(np.square(source - received)) / np.mean(np.square(source)))
            ),
            **judged(received, expected, labels),
        }
    told["Keras, float"] = judged(expected, expected, labels)
    told["Keras, quantized"] = judged(quantized, expected, labels)
    return told


def peak_memory(content: bytes) -> int:
    """Returns by how many kilobytes a process grows at most that loads the file and runs it once;
    the file's pages count. Linux only.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        path.write_bytes(content)
        done = subprocess.run(
            [sys.executable, "-c", _MEMORY, str(path)],
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
    return int(done.stdout.split()[-1])


def litert_quantizer_file(floats: bytes, chosen) -> bytes:
    """Returns what litert-quantizer makes of a float file by one of its recipes."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = pathlib.Path(folder) / "float.tflite"
        path.write_bytes(floats)
        work = quantizer.Quantizer(os.fspath(path))
        work.load_quantization_recipe(chosen)
        return bytes(work.quantize().quantized_model)


def converter_file(
    plain: keras.Model, examples: Sequence[np.ndarray], batch: int | None = 1
) -> bytes:
    """Returns what the TFLite converter makes of a Keras model in static int8, for batches of this
    size (`None`: of any).
    """
    specs = [tf.TensorSpec((batch, *tensor.shape[1:]), tensor.dtype) for tensor in plain.inputs]

    @tf.function(input_signature=specs)
    def answer(*inputs):
        return keras.tree.flatten(
            plain(keras_graph.structured_inputs(plain, list(inputs)), training=False)
        )

    converter = tf.lite.TFLiteConverter.from_concrete_functions([answer.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [array[number : number + 1] for array in examples] for number in range(len(examples[0]))
    )
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]
    with warnings.catch_warnings():
        # It says that statistics of some tensors are missing; those stay float.
        warnings.simplefilter("ignore")
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        return converter.convert()
