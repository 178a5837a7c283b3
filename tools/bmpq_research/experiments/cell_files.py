"""What a trained cell gives for a device: its files, and how they answer."""

import pathlib
from typing import Any

import keras

from bmpq_research.datasets import normalised_test_images, normalised_training_images
from bmpq_research.experiments.splits import Splits
from bmpq_research.experiments.training import in_float32
from bmpq_tf.export.converter.convert import to_float_tflite
from bmpq_tf.export.micro.operators import is_installed
from bmpq_tf.export.micro.runtime import MicroModel
from bmpq_tf.export.pipeline import export_tflite
from bmpq_tf.export.tflite.interpreter import TFLiteModel, classification_accuracy
from bmpq_tf.files import write_bytes
from bmpq_tf.model import keras_graph

_CALIBRATION = 500


def judged_file(content: bytes, splits: Splits) -> dict[str, Any]:
    """Returns a file's accuracies in LiteRT, by split, and its size."""
    file = TFLiteModel(content)
    accuracies = {
        name: classification_accuracy(file, normalised_test_images(judged))
        for name, judged in splits.judged.items()
    }
    return {"tflite_accuracy": accuracies, "file_bytes": len(content)}


def exported_file(
    model: keras.Model, splits: Splits, folder: pathlib.Path
) -> tuple[bytes, dict[str, Any]]:
    """Exports a model, float or quantized; returns the file's content and what the export found."""
    path = folder / "model.tflite"
    if not keras_graph.quantized_layers(model):
        write_bytes(path, to_float_tflite(in_float32(model)))
        return path.read_bytes(), {}
    # The first images judged: the files' accuracies are told over all of them anyway.
    images = normalised_test_images(splits.train).take(4)
    report = export_tflite(model, path, verify_with=images, overwrite=True)
    return path.read_bytes(), {
        "packed_weight_bytes": report.packed_weight_bytes,
        "agreement": report.parity.agreement,
        "max_abs_diff": report.parity.max_abs_diff,
        "logit_scale": report.parity.logit_scale,
    }


def device_files(model: keras.Model, splits: Splits, folder: pathlib.Path) -> dict[str, Any]:
    """Exports a model of rounded activations in integers, and for microcontrollers where TFLM is
    installed; returns their sizes, and their accuracies on the last split.
    """
    path = folder / "device.tflite"
    # Nothing that judges the files sets their ranges.
    images = normalised_training_images(splits.train, _CALIBRATION)
    name, judged = list(splits.judged.items())[-1]
    told = {}
    runtimes = {"integer": TFLiteModel, **({"micro": MicroModel} if is_installed() else {})}
    for kind, runtime in runtimes.items():
        export_tflite(
            model,
            path,
            optimize_for=kind,
            calibrate_with=images,
            verify_with=images,
            # What they lose is told, by their accuracy.
            tolerance=0.5,
            overwrite=True,
        )
        content = path.read_bytes()
        accuracy = classification_accuracy(runtime(content), normalised_test_images(judged))
        told[kind] = {"file_bytes": len(content), "accuracy": {name: accuracy}}
    return {"device_files": told}
