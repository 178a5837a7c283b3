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

from bmpq_tf import layers
from bmpq_tf._version import __version__
from bmpq_tf.allocation.budget import Budget, InfeasibleBudgetError
from bmpq_tf.allocation.solver import AllocationError
from bmpq_tf.conversion.quantize import SkippedLayersWarning, dequantize_model, quantize_model
from bmpq_tf.export.pipeline import ConstantColumnsWarning, ExportError, FloatKernelsWarning, export_tflite
from bmpq_tf.export.report import ExportReport
from bmpq_tf.model.summary import summary
from bmpq_tf.training.callback import BMPQCallback
from bmpq_tf.training.oscillation_freezing import FreezeOscillations

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
