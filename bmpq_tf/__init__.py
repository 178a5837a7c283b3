"""Quantization-aware training for Keras 3 that ends in a mixed-precision `.tflite` file.

model = bmpq_tf.quantize_model(float_model, candidate_bits=(2, 4, 8))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, epochs=30, callbacks=[bmpq_tf.BMPQCallback("10x")])
bmpq_tf.summary(model)
report = bmpq_tf.export_tflite(model, "model.tflite", verify_with=test)
"""

import keras

# Before anything that would fail there without saying why.
if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"bmpq_tf needs Keras's TensorFlow backend. Received: keras.backend.backend()={keras.backend.backend()!r}. "
        "Unset KERAS_BACKEND, or set it to tensorflow, before Keras is imported."
    )

# isort: split
# Keras finds the classes that a saved model names only where they were imported.
import bmpq_tf.experiments.recipe
import bmpq_tf.models  # noqa: F401
from bmpq_tf import layers
from bmpq_tf._version import __version__
from bmpq_tf.allocation import AllocationError
from bmpq_tf.budget import Budget, InfeasibleBudgetError
from bmpq_tf.callbacks import BMPQCallback
from bmpq_tf.export import ConstantColumnsWarning, ExportError, ExportReport, FloatKernelsWarning, export_tflite
from bmpq_tf.freezing import FreezeOscillations
from bmpq_tf.quantize import SkippedLayersWarning, dequantize_model, quantize_model
from bmpq_tf.reporting import summary

__all__ = [
    "AllocationError",
    "BMPQCallback",
    "Budget",
    "ConstantColumnsWarning",
    "ExportError",
    "ExportReport",
    "FloatKernelsWarning",
    "FreezeOscillations",
    "InfeasibleBudgetError",
    "SkippedLayersWarning",
    "__version__",
    "dequantize_model",
    "export_tflite",
    "layers",
    "quantize_model",
    "summary",
]
