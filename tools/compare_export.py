"""Compares our files with what a user would take instead: post-training quantization of the same weights, as they lie on our grid.

Prints size, median latency on one thread in alternated rounds, growth of a process's peak memory, and agreement with Keras.
The model is a quantized .keras file, or one trained for a moment on random images, whose agreement says little.

Example:
  python tools/compare_export.py --keras=runs/resnet20/model.keras --dataset=cifar10
  python tools/compare_export.py --model=mobilenet_v2
"""

import os

# Before TensorFlow is imported; its start-up messages would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# isort: split
import itertools
import json
import pathlib
import statistics
import sys
import tempfile
import time

import keras
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

import bmpq_tf
from bmpq_tf.console import run as run_program
from bmpq_tf.datasets import load_dataset, normalised_test_images, normalised_training_images
from bmpq_tf.export import parity
from bmpq_tf.export.containers import MODES
from bmpq_tf.export.report import zipped_size
from bmpq_tf.export.rivals import peak_memory, rivals
from bmpq_tf.export.runtime import TFLiteModel
from bmpq_tf.models import build_model

flags.DEFINE_string("keras", None, "A quantized .keras model; otherwise --model is trained for a moment.")
flags.DEFINE_enum("model", "resnet20", ("resnet20", "mobilenet_v2"), "The model to train for a moment.")
flags.DEFINE_string("budget", "10x", "Its budget.")
flags.DEFINE_string("dataset", None, "Calibrate and compare on this data set's test images; on random ones if not given.")
flags.DEFINE_string("data_dir", None, "Where tfds keeps the data sets.")
flags.DEFINE_integer("examples", 500, "Images to compare on.", lower_bound=1)
flags.DEFINE_integer("rounds", 30, "Alternated rounds of five calls.", lower_bound=1)
flags.DEFINE_bool("json", False, "Print figures as JSON instead of a table.")
CALIBRATED_ON = 100
BASE = "litert-quantizer, dynamic int8"


def main(_: list[str]) -> None:
    """Builds the files, measures and prints."""
    given = flags.FLAGS
    keras.utils.set_random_seed(0)
    model = keras.models.load_model(given.keras) if given.keras else _momentary(given.model, given.budget)
    images, calibration = _images(model, given)
    plain = bmpq_tf.dequantize_model(model)
    files = rivals(plain, [calibration])
    with tempfile.TemporaryDirectory() as folder:
        for mode in MODES:
            path = pathlib.Path(folder) / f"{mode}.tflite"
            calibrate_with = calibration if mode == "integer" else None
            try:
                bmpq_tf.export_tflite(model, path, optimize_for=mode, verify_with=images[:100], calibrate_with=calibrate_with)
            except bmpq_tf.ExportError as error:
                print(f"{mode}: {error}")
                continue
            files[f'bmpq_tf, "{mode}"'] = path.read_bytes()
    told = measure(model, files, images, given.rounds)
    if given.json:
        print(json.dumps(told, indent=1))
        return
    table = Table(title=f"{model.name}, {len(images)} {'test' if given.dataset else 'random'} images, {given.rounds} rounds")
    for column in ("file", "bytes", "zipped", "ms", "speed", "RAM kB", "top-1", "rms"):
        table.add_column(column, justify="left" if column == "file" else "right", no_wrap=True)
    for name, row in told.items():
        figures = (f"{row['ms']:.3f}", f"{row['ratio']:.2f}", f"{row['peak_kb']:,}", f"{row['agreement']:.2%}", f"{row['rms']:.4f}")
        table.add_row(name, f"{row['bytes']:,}", f"{row['zipped_bytes']:,}", *figures)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    print(f"speed: relative to {BASE}; RAM: growth of a process's peak; top-1: as Keras; rms: of the differences, relative to Keras's outputs")


def measure(model: keras.Model, files: dict[str, bytes], images: np.ndarray, rounds: int) -> dict[str, dict]:
    """Returns each file's figures; `ratio` is the median over rounds of the time of litert-quantizer's dynamic int8 over its own."""
    times = _times(files, images[:1], rounds)
    expected = np.concatenate([parity.keras_answers(model, [images[start : start + 50]])[0] for start in range(0, len(images), 50)])
    told = {}
    for name, content in files.items():
        runtime = TFLiteModel(content)
        # The converter's file takes one image at a time.
        received = np.concatenate([runtime([images[number : number + 1]])[0] for number in range(len(images))])
        told[name] = {
            "bytes": len(content),
            "zipped_bytes": zipped_size(content),
            "ms": 1e3 * statistics.median(times[name]),
            "ratio": statistics.median(base / own for base, own in zip(times[BASE], times[name], strict=True)),
            "peak_kb": peak_memory(content),
            "agreement": float(np.mean(expected.argmax(-1) == received.argmax(-1))),
            "rms": float(np.sqrt(np.mean(np.square(expected - received)) / np.mean(np.square(expected)))),
        }
    return told


def _times(files: dict[str, bytes], image: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Seconds a call, each contestant five calls a round, in turn; two rounds to warm up."""
    runtimes = {name: TFLiteModel(content, num_threads=1) for name, content in files.items()}
    times: dict[str, list[float]] = {name: [] for name in files}
    for turn in range(rounds + 2):
        # A contestant that always follows the same one would inherit its caches.
        order = list(runtimes)[turn % len(runtimes) :] + list(runtimes)[: turn % len(runtimes)]
        for name in order:
            start = time.perf_counter()
            for _ in range(5):
                runtimes[name]([image])
            if turn > 1:
                times[name].append((time.perf_counter() - start) / 5)
    return times


def _momentary(name: str, budget: str) -> keras.Model:
    """A model at mixed widths whose BatchNorm statistics are real."""
    if name == "resnet20":
        model = build_model("resnet20", (32, 32, 3), 10, 1.0)
    else:
        model = keras.applications.MobileNetV2((96, 96, 3), weights=None, classes=10, classifier_activation=None)
    model = bmpq_tf.quantize_model(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=False)
    images, labels = _random(model.input_shape[1:], 64)
    model.fit(images, labels, batch_size=16, epochs=5, callbacks=[bmpq_tf.BMPQCallback(budget, settle_epochs=2)], verbose=0)
    return model


def _random(shape: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, count)
    return (generator.standard_normal((count, *shape)) + labels[:, None, None, None] / 5).astype("float32"), labels


def _images(model: keras.Model, given) -> tuple[np.ndarray, np.ndarray]:
    """Images to compare on, and others to calibrate with."""
    if not given.dataset:
        images, _ = _random(model.input_shape[1:], given.examples + CALIBRATED_ON)
        return images[CALIBRATED_ON:], images[:CALIBRATED_ON]
    dataset = load_dataset(given.dataset, given.data_dir and os.path.expanduser(given.data_dir))
    (calibration, _), *_ = normalised_training_images(dataset, CALIBRATED_ON)
    test = np.concatenate([images.numpy() for images, _ in itertools.islice(normalised_test_images(dataset), -(-given.examples // 250))])
    return test[: given.examples], calibration.numpy()


def run() -> None:
    """The console entry point."""
    run_program(main)


if __name__ == "__main__":
    run()
