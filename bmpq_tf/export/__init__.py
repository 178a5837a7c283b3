"""From a trained quantized model to a packed `.tflite` file that is known to answer as the model does."""

from bmpq_tf.export.exporter import ConstantColumnsWarning, ExportError, FloatKernelsWarning, export_tflite
from bmpq_tf.export.report import ExportReport, LayerReport

__all__ = ["ConstantColumnsWarning", "ExportError", "ExportReport", "FloatKernelsWarning", "LayerReport", "export_tflite"]
