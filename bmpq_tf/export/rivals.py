"""What a user would take instead: post-training quantization of the same weights."""

import contextlib
import io
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from litert_quantizer import quantizer, recipe

from bmpq_tf import graph
from bmpq_tf.export.convert import to_float_tflite

# Runs in a process of its own that has nothing but LiteRT; prints the growth of its peak memory in kilobytes.
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


def rivals(plain: keras.Model, examples: Sequence[np.ndarray]) -> dict[str, bytes]:
    """Returns files by name: float32, litert-quantizer's dynamic int8 and int4, and the TFLite converter's static int8.

    Args:
        plain: a model of plain Keras layers.
        examples: of its inputs, to calibrate with.
    """
    floats = to_float_tflite(plain)
    return {
        "float32": floats,
        "litert-quantizer, dynamic int8": litert_quantizer_file(floats, recipe.dynamic_wi8_afp32()),
        "litert-quantizer, dynamic int4": litert_quantizer_file(floats, recipe.dynamic_wi4_afp32()),
        "TFLite converter, static int8": converter_file(plain, examples),
    }


def peak_memory(content: bytes) -> int:
    """Returns by how many kilobytes a process grows at most that loads the file and runs it once; the file's pages count. Linux only."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        path.write_bytes(content)
        done = subprocess.run([sys.executable, "-c", _MEMORY, str(path)], capture_output=True, text=True, check=True, timeout=600)
    return int(done.stdout.split()[-1])


def litert_quantizer_file(floats: bytes, chosen) -> bytes:
    """Returns what litert-quantizer makes of a float file by one of its recipes."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = pathlib.Path(folder) / "float.tflite"
        path.write_bytes(floats)
        work = quantizer.Quantizer(os.fspath(path))
        work.load_quantization_recipe(chosen)
        return bytes(work.quantize().quantized_model)


def converter_file(plain: keras.Model, examples: Sequence[np.ndarray], batch: int | None = 1) -> bytes:
    """Returns what the TFLite converter makes of a Keras model in static int8, for batches of this size (`None`: of any)."""
    specs = [tf.TensorSpec((batch, *tensor.shape[1:]), tensor.dtype) for tensor in plain.inputs]

    @tf.function(input_signature=specs)
    def answer(*inputs):
        return keras.tree.flatten(plain(graph.structured_inputs(plain, list(inputs)), training=False))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([answer.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([array[number : number + 1] for array in examples] for number in range(len(examples[0])))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    with warnings.catch_warnings():
        # It says that statistics of some tensors are missing; those stay float.
        warnings.simplefilter("ignore")
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        return converter.convert()
