"""A hundred million weights: time and memory of each thing that is done with a large model, and how
they grow on the way there.
"""

import pathlib
import tempfile
import time

import keras
import numpy as np

import bmpq_tf
from bmpq_research.benchmarks.measure import exponent, in_fresh_process
from bmpq_research.benchmarks.report import Result
from bmpq_research.memory import from_now_on, peak_memory

layers = keras.layers
# A quarter of the weights lies in an embedding; the kernels are as many as 3x3 convolutions of
# about 250,000 weights make.
SIZES = (12.5e6, 25e6, 50e6, 100e6)
_KERNEL, _DEPTH = 250_000, 512


def at_scale(sizes=SIZES) -> list[Result]:
    """Quantizes, trains a step, decides, saves, loads and exports models, each in a process of its
    own.
    """
    rows = [in_fresh_process(_measured, weights)[0] for weights in sizes]
    notes = []
    if len(rows) > 1:
        weights = [row["weights"] for row in rows]
        for unit in ("s", "MB"):
            grown = {
                name.removesuffix(f", {unit}"): exponent(weights, [row[name] for row in rows])
                for name in rows[0]
                if name.endswith(f", {unit}") and min(row[name] for row in rows) > 0
            }
            notes.append(
                f"{'Seconds' if unit == 's' else 'Added peak memory'} grow as the weights to the "
                + ", ".join(f"{value:.2f} ({name})" for name, value in grown.items())
                + "."
            )
    return [Result("At scale", rows, tuple(notes))]


def large(weights: float) -> keras.Model:
    """Wide convolutions on 8x8 images, and an embedding of a quarter of the weights."""
    width = round((_KERNEL / 9) ** 0.5)
    image, words = keras.Input((8, 8, 3)), keras.Input((16,), dtype="int32")
    x = layers.Conv2D(width, 1)(image)
    for _ in range(round(0.75 * weights / (9 * width**2))):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    y = layers.Embedding(round(0.25 * weights / _DEPTH), _DEPTH)(words)
    pooled = [layers.GlobalAveragePooling2D()(x), layers.GlobalAveragePooling1D()(y)]
    return keras.Model([image, words], layers.Dense(10)(layers.Concatenate()(pooled)))


def _measured(weights: float) -> dict[str, float]:
    model = large(weights)
    row: dict[str, float] = {"weights": model.count_params()}

    def timed(name, function):
        before, start = from_now_on(), time.perf_counter()
        result = function()
        row[f"{name}, s"] = time.perf_counter() - start
        row[f"{name}, MB"] = (peak_memory() - before) / 1e6
        return result

    model = timed("quantize", lambda: bmpq_tf.quantize_model(model))
    row["kernels"] = len(bmpq_tf.kernel_table(model))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    random = np.random.default_rng(0)
    data = [
        random.standard_normal((8, 8, 8, 3), "float32"),
        random.integers(0, model.inputs[1].shape[1], (8, 16)),
    ]
    timed("first step", lambda: model.train_on_batch(data, random.integers(0, 10, 8)))
    timed("decision", lambda: bmpq_tf.assign_bits(model, bmpq_tf.allocate_bits(model, "8x").bits))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        timed("save", lambda: model.save(path / "model.keras"))
        del model
        model = timed("load", lambda: keras.models.load_model(path / "model.keras"))
        few = [part[:2] for part in data]
        timed("export", lambda: bmpq_tf.export_tflite(model, path / "file", verify_with=few))
        row["file, MB"] = (path / "file").stat().st_size / 1e6
    return row
