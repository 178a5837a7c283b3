"""From a trained quantized model to a packed `.tflite` file that is known to answer as the model does."""

from bmpq_tf.export.exporter import ExportError, ExportReport, LayerReport, export_tflite

__all__ = ["ExportError", "ExportReport", "LayerReport", "export_tflite"]
