"""Times training of a float model and of its quantized twin, in turn, in one process, and prints the ratio pair by pair.

Example:
  python tools/benchmark.py --model=resnet20 --batch_size=128 --rounds=7
"""

import os

# Before TensorFlow is imported; its start-up messages would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# isort: split
import json
import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from rich.console import Console
from rich.table import Table

from bmpq_tf.console import run as run_program
from bmpq_tf.models import MODELS, build_model
from bmpq_tf.quantize import quantize_model

flags.DEFINE_enum("model", "resnet20", sorted(MODELS), "The model.")
flags.DEFINE_float("width", 1.0, "Multiplies the channels of the model.")
flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1)
flags.DEFINE_integer("steps", 15, "Steps a turn.", lower_bound=1)
flags.DEFINE_integer("rounds", 7, "Turns of each contestant, after one to warm up.", lower_bound=1)
flags.DEFINE_bool("json", False, "Print figures as JSON instead of a table.")


def main(_: list[str]) -> None:
    """Runs the rounds and prints medians and ratios."""
    given = flags.FLAGS
    keras.utils.set_random_seed(0)
    shape = (8, 8, 1) if given.model.startswith("digits") else (32, 32, 3)
    float_model = build_model(given.model, shape, 10, given.width)
    contestants = {
        "float": float_model,
        "quantized": quantize_model(float_model, track_sensitivity=False),
        "quantized, with sensitivities": quantize_model(float_model),
    }
    for model in contestants.values():
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, metrics=["accuracy"], jit_compile=False)
    generator = np.random.default_rng(0)
    images = tf.constant(generator.standard_normal((given.batch_size, *shape)), tf.float32)
    labels = tf.constant(generator.integers(0, 10, given.batch_size))
    speeds = {name: [] for name in contestants}
    for turn in range(given.rounds + 1):
        for name, model in contestants.items():
            start = time.perf_counter()
            for _ in range(given.steps):
                model.train_on_batch(images, labels)
            if turn:
                speeds[name].append(given.steps * given.batch_size / (time.perf_counter() - start))
    told = {
        name: {
            "images_per_second": statistics.median(values),
            "ratio": statistics.median(ours / base for ours, base in zip(values, speeds["float"], strict=True)),
        }
        for name, values in speeds.items()
    }
    if given.json:
        print(json.dumps(told, indent=1))
        return
    table = Table(title=f"{given.model}, width {given.width:g}, batch {given.batch_size}: medians of {given.rounds} rounds in turn")
    for column in ("training", "images a second", "ratio to float, pair by pair"):
        table.add_column(column, justify="left" if column == "training" else "right")
    for name, figures in told.items():
        table.add_row(name, f"{figures['images_per_second']:.0f}", f"{figures['ratio']:.3f}")
    Console().print(table)


def run() -> None:
    """The console entry point."""
    run_program(main)


if __name__ == "__main__":
    run()
