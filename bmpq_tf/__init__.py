"""Quantization-aware training for Keras 3 that ends in a mixed-precision `.tflite` file.

    model = bmpq_tf.quantize_model(float_model, candidate_bits=(2, 4, 8))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, epochs=30, callbacks=[bmpq_tf.BMPQCallback("10x")])
    bmpq_tf.summary(model)
    report = bmpq_tf.export_tflite(model, "model.tflite", verify_with=test)

What `dir(bmpq_tf)` and `dir(bmpq_tf.layers)` show is the API. Every other module is internal and
may change. The subpackages, each of which imports only from those above it. Except for emulation, a
value goes through them in this order:

    emulation    an emulated ARM processor: its set-up, and LiteRT on it
    arithmetic   quantizers, scales, bit planes and bit gradients: functions of tensors
    layers       the quantized layers, the registry that pairs them with Keras's, their config;
                 kernel_quantizer: all that a killed run needs to resume, in variables
    allocation   budgets and their limits, kinds of sensitivity, the integer program; no Keras in it
    model        a Keras model's graph, its kernels, the table of them
    conversion   from a float model to a quantized one and back; why a layer stays float
    export       from a trained model to a verified file: checks (why it is refused), converter,
                 kernels (search, match, storage, lowering, packing), integer, micro (files for
                 microcontrollers), verification, npu (what Vela makes of a file), tflite
    reporting    one page of a trained model and its file: facts, tables, figures, HTML and text
    training     the callback, its schedule, the record of its decisions, self-distillation,
                 several machines
    tuning, cli  the searches for a front and for the smallest budget; the installed commands
"""

import importlib
from typing import TYPE_CHECKING

from bmpq_tf import runtime_messages as _runtime_messages

# Before TensorFlow is imported, which talks then already.
if _runtime_messages.is_command():
    _runtime_messages.start()

# isort: split
import keras

# Before anything that would fail there without saying why.
if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "bmpq_tf needs Keras's TensorFlow backend. "
        f"Received: keras.backend.backend()={keras.backend.backend()!r}. "
        "Unset KERAS_BACKEND, or set it to tensorflow, before Keras is imported."
    )

# isort: split
# At once: Keras finds the classes that a saved model names only where they were imported.
from bmpq_tf import layers
from bmpq_tf._version import __version__
from bmpq_tf.tuning import recipe as _recipe  # noqa: F401

# The rest when it is first asked for: the solver and LiteRT take a third of a second to import.
_HOMES = {
    "allocation.budget": ("Budget", "InfeasibleBudgetError"),
    "allocation.sensitivity": ("Measurement", "estimate_costs"),
    "allocation.solver": ("AllocationError", "Solution"),
    "conversion.config": ("QuantizationConfig",),
    "conversion.dequantize": ("dequantize_model",),
    "conversion.keras2": ("load_keras2_model",),
    "conversion.quantize": ("SkippedLayersWarning", "quantize_model"),
    "export.micro.firmware": ("write_firmware",),
    "export.micro.verification": ("MicroReport",),
    "export.errors": (
        "ConstantColumnsWarning",
        "ConversionError",
        "ExportError",
        "FloatKernelsWarning",
    ),
    "export.npu.report": ("VelaKernel", "VelaReport"),
    "export.npu.vela": ("VelaError", "inspect_vela"),
    "export.pipeline": ("export_tflite",),
    "export.report": ("ExportReport", "LayerReport"),
    "export.run": ("compare_tflite", "run_tflite"),
    "export.tflite.inspection": ("Inspection", "UnreadableFileError", "inspect_tflite"),
    "export.verification.parity": ("Parity",),
    "model.graph_view": ("ends_in_softmax",),
    "model.summary": ("KernelRow", "kernel_table", "summary"),
    "reporting.report": ("write_report",),
    "training.allocator": ("allocate_bits", "assign_bits"),
    "training.backup": ("BackupAndRestore",),
    "training.callback": ("BMPQCallback",),
    "training.channels": ("drop_channels",),
    "training.distribution": ("prepare_for_workers",),
    "training.oscillation_freezing": ("FreezeOscillations",),
    "training.self_distillation": ("SelfDistiller",),
    "tuning.smallest": ("SmallestBudget", "smallest_budget"),
}
_HOME_OF = {name: f"bmpq_tf.{module}" for module, names in _HOMES.items() for name in names}

if TYPE_CHECKING:
    from bmpq_tf.allocation.budget import Budget, InfeasibleBudgetError
    from bmpq_tf.allocation.sensitivity import Measurement, estimate_costs
    from bmpq_tf.allocation.solver import AllocationError, Solution
    from bmpq_tf.conversion.config import QuantizationConfig
    from bmpq_tf.conversion.dequantize import dequantize_model
    from bmpq_tf.conversion.keras2 import load_keras2_model
    from bmpq_tf.conversion.quantize import SkippedLayersWarning, quantize_model
    from bmpq_tf.export.errors import (
        ConstantColumnsWarning,
        ConversionError,
        ExportError,
        FloatKernelsWarning,
    )
    from bmpq_tf.export.micro.firmware import write_firmware
    from bmpq_tf.export.micro.verification import MicroReport
    from bmpq_tf.export.npu.report import VelaKernel, VelaReport
    from bmpq_tf.export.npu.vela import VelaError, inspect_vela
    from bmpq_tf.export.pipeline import export_tflite
    from bmpq_tf.export.report import ExportReport, LayerReport
    from bmpq_tf.export.run import compare_tflite, run_tflite
    from bmpq_tf.export.tflite.inspection import Inspection, UnreadableFileError, inspect_tflite
    from bmpq_tf.export.verification.parity import Parity
    from bmpq_tf.model.graph_view import ends_in_softmax
    from bmpq_tf.model.summary import KernelRow, kernel_table, summary
    from bmpq_tf.reporting.report import write_report
    from bmpq_tf.training.allocator import allocate_bits, assign_bits
    from bmpq_tf.training.backup import BackupAndRestore
    from bmpq_tf.training.callback import BMPQCallback
    from bmpq_tf.training.channels import drop_channels
    from bmpq_tf.training.distribution import prepare_for_workers
    from bmpq_tf.training.oscillation_freezing import FreezeOscillations
    from bmpq_tf.training.self_distillation import SelfDistiller
    from bmpq_tf.tuning.smallest import SmallestBudget, smallest_budget

__all__ = [
    "AllocationError",
    "BMPQCallback",
    "BackupAndRestore",
    "Budget",
    "ConstantColumnsWarning",
    "ConversionError",
    "ExportError",
    "ExportReport",
    "FloatKernelsWarning",
    "FreezeOscillations",
    "InfeasibleBudgetError",
    "Inspection",
    "KernelRow",
    "LayerReport",
    "Measurement",
    "MicroReport",
    "Parity",
    "QuantizationConfig",
    "SelfDistiller",
    "SkippedLayersWarning",
    "SmallestBudget",
    "Solution",
    "UnreadableFileError",
    "VelaError",
    "VelaKernel",
    "VelaReport",
    "__version__",
    "allocate_bits",
    "assign_bits",
    "compare_tflite",
    "dequantize_model",
    "drop_channels",
    "ends_in_softmax",
    "estimate_costs",
    "export_tflite",
    "inspect_tflite",
    "inspect_vela",
    "kernel_table",
    "layers",
    "load_keras2_model",
    "prepare_for_workers",
    "quantize_model",
    "run_tflite",
    "smallest_budget",
    "summary",
    "write_firmware",
    "write_report",
]


def __getattr__(name: str):
    if name not in _HOME_OF:
        raise AttributeError(f"module 'bmpq_tf' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
