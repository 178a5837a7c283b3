"""Compares our files with what a user would take instead.

Post-training quantization of the same float weights.

Prints size, zipped size, median latency on one thread in alternated rounds, growth of a process's
peak memory, agreement with the float model and, on a data set, test accuracy. The float model is
the float.keras that tools/train.py --with_float writes. Without one the others quantize the latent
float weights of the quantized model, and everybody's agreement is with those: that model was not
trained to answer so.

Examples:
  python tools/compare_export.py --keras=runs/demo/model.keras \\
      --float_keras=runs/demo/float.keras --dataset=digits
  python tools/compare_export.py --model=mobilenet_v2
"""

# First: it keeps off the screen what TensorFlow writes when it is imported.
import bmpq_tf

# isort: split
import itertools
import json
import os
import statistics
import sys

import keras
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from bmpq_research.benchmarks.measure import alternate, paired_ratio
from bmpq_research.benchmarks.peer_files import BASE, figures, float_twin, our_files, peer_files
from bmpq_research.datasets import (
    DATA_DIR_HELP,
    load_dataset,
    normalised_test_images,
    normalised_training_images,
)
from bmpq_research.models import build_model
from bmpq_research.program import run as run_program
from bmpq_tf.export.tflite.interpreter import TFLiteModel

flags.DEFINE_string(
    "keras",
    None,
    "A quantized .keras model; otherwise --model is trained for a moment on random images.",
)
flags.DEFINE_string(
    "float_keras",
    None,
    "Its float twin, which the others quantize and all are compared with; its latent weights if "
    "not given.",
)
flags.DEFINE_enum(
    "model", "resnet20", ("resnet20", "mobilenet_v2"), "The model to train for a moment."
)
flags.DEFINE_string("budget", "10x", "Its budget.")
flags.DEFINE_string(
    "dataset",
    None,
    "Calibrate on this data set's training images and compare on its test images; on random ones "
    "if not given.",
)
flags.DEFINE_string("data_dir", None, DATA_DIR_HELP)
flags.DEFINE_integer("examples", 500, "Images to compare on.", lower_bound=1)
flags.DEFINE_integer("rounds", 30, "Alternated rounds of five calls.", lower_bound=1)
flags.DEFINE_bool("json", False, "Print figures as JSON instead of a table.")
CALIBRATED_ON = 100
VERIFIED_ON = 100
CALLS = 5


def main() -> None:
    """Builds the files, measures and prints."""
    given = flags.FLAGS
    for path in (given.keras, given.float_keras):
        if path and not os.path.exists(path):
            raise FileNotFoundError(
                f"No such model. Received: '{path}'. Train one with tools/train.py --with_float "
                "--out_dir."
            )
    if given.float_keras and not given.keras:
        raise ValueError(
            "A float model needs the quantized one beside it. Received: "
            f"--float_keras={given.float_keras} without --keras."
        )
    keras.utils.set_random_seed(0)
    model = (
        keras.models.load_model(given.keras, compile=False)
        if given.keras
        else _momentary(given.model, given.budget)
    )
    plain = (
        float_twin(given.float_keras, model)
        if given.float_keras
        else bmpq_tf.dequantize_model(model, on_grid=False)
    )
    images, labels, calibration = _images(model, given)
    files, problems = our_files(model, images[:VERIFIED_ON], calibration)
    files = peer_files(plain, [calibration]) | files
    told = figures(files, plain, model, images, labels)
    for name, values in _times(files, images[:1], given.rounds).items():
        told[name] |= {
            "ms": 1e3 * statistics.median(values["own"]) / CALLS,
            "ratio": paired_ratio(values["base"], values["own"]),
        }
    told |= {name: {"problem": problem} for name, problem in problems.items()}
    if given.json:
        print(json.dumps(told, indent=1))
        return
    _show(
        told,
        f"{model.name}, {len(images)} {'test' if given.dataset else 'random'} images, "
        f"{given.rounds} rounds",
    )
    twin = given.float_keras or "the quantized model's latent weights, unrounded"
    print(
        f"size, speed: relative to {BASE}, above 1 larger, faster; RAM: growth of a process's "
        "peak\n"
        f"as float: top-1 equal to {twin}; rms: of the differences from the Keras model that the "
        "file is of, relative to its outputs"
    )


def _show(told: dict[str, dict], title: str) -> None:
    cells = {
        "bytes": "{:,}",
        "size": "{:.2f}",
        "zipped_bytes": "{:,}",
        "ms": "{:.3f}",
        "ratio": "{:.2f}",
        "peak_kb": "{:,}",
        "accuracy": "{:.2%}",
        "agreement": "{:.2%}",
        "rms": "{:.4f}",
    }
    titles = {
        "zipped_bytes": "zipped",
        "ratio": "speed",
        "peak_kb": "RAM kB",
        "agreement": "as float",
    }
    shown = [key for key in cells if any(key in row for row in told.values())]
    table = Table(title=title)
    for column in ("file", *(titles.get(key, key) for key in shown)):
        table.add_column(column, justify="left" if column == "file" else "right", no_wrap=True)
    for name, row in told.items():
        table.add_row(name, *(cells[key].format(row[key]) if key in row else "" for key in shown))
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    for name, row in told.items():
        if "problem" in row:
            print(f"{name}: no file. {row['problem']}")


def _times(
    files: dict[str, bytes], image: np.ndarray, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each round's calls on one thread, each file's own and the base's."""

    def calls(content: bytes):
        runtime = TFLiteModel(content, num_threads=1)
        return lambda: [runtime([image]) for _ in range(CALLS)]

    times = alternate({name: calls(content) for name, content in files.items()}, rounds, warm_up=2)
    return {name: {"own": own, "base": times[BASE]} for name, own in times.items()}


def _momentary(name: str, budget: str) -> keras.Model:
    """A model at mixed widths whose BatchNorm statistics are real."""
    if name == "resnet20":
        model = build_model("resnet20", (32, 32, 3), 10, 1.0)
    else:
        model = keras.applications.MobileNetV2(
            (96, 96, 3), weights=None, classes=10, classifier_activation=None
        )
    model = bmpq_tf.quantize_model(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=False)
    images, labels = _random(model.input_shape[1:], 64)
    model.fit(
        images,
        labels,
        batch_size=16,
        epochs=5,
        callbacks=[bmpq_tf.BMPQCallback(budget, settle_epochs=2, verbose=0)],
        verbose=0,
    )
    return model


def _random(shape: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, count)
    return (generator.standard_normal((count, *shape)) + labels[:, None, None, None] / 5).astype(
        "float32"
    ), labels


def _images(model: keras.Model, given) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Images to compare on, their labels where they are a data set's, and other images to calibrate
    with.
    """
    shape = tuple(model.inputs[0].shape[1:])
    if len(model.inputs) > 1 or len(shape) != 3:
        raise ValueError(
            "This tool compares models of one image. Received: inputs "
            f"{[tuple(tensor.shape) for tensor in model.inputs]}."
        )
    if not given.dataset and None in shape:
        raise ValueError(
            f"Random images need a fixed size. Received: a model that takes {shape}. Give "
            "--dataset."
        )
    if not given.dataset:
        images, _ = _random(shape, given.examples + CALIBRATED_ON)
        return images[CALIBRATED_ON:], None, images[:CALIBRATED_ON]
    dataset = load_dataset(given.dataset, given.data_dir)
    if any(size not in (None, have) for size, have in zip(shape, dataset.image_shape, strict=True)):
        raise ValueError(
            f"The model takes other images. Received: --dataset={given.dataset} of "
            f"{dataset.image_shape}; the model takes {shape}."
        )
    (calibration, _), *_ = normalised_training_images(dataset, CALIBRATED_ON)
    test = np.concatenate(
        [
            images.numpy()
            for images, _ in itertools.islice(
                normalised_test_images(dataset), -(-given.examples // 250)
            )
        ]
    )
    return test[: given.examples], dataset.test[1][: given.examples], calibration.numpy()


if __name__ == "__main__":
    run_program(main)
