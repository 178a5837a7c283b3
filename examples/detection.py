"""Detection: a head that says for each cell of a grid what lies there and which box it has.

    python examples/detection.py --budget=8x --out=runs/detection.tflite

Shows: two outputs with a loss each, and sample weights by cell; boxes want wider heads than
classes do, so `overrides=` gives theirs 8 bits; recall at an IoU of 0.5, taken from the file.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Before TensorFlow is imported.

# isort: split
import keras
import numpy as np
from absl import app, flags, logging

import bmpq_tf

flags.DEFINE_string("budget", "8x", "What the model may take: '8x', '2.5 bits', '4 kB'.")
flags.DEFINE_string("out", "runs/detection.tflite", "Where the file goes.")

SIDE, CELL, GRID = 48, 8, 6  # pixels of an image and of a cell; cells a side


def make_scenes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns images (n, 48, 48, 1) of two shapes each, and for each cell of a grid (n, 6, 6) what
    lies there (1: disc, 2: square) and its box (n, 6, 6, 3): row, column and radius, in cells.
    """
    random = np.random.default_rng(seed)
    images = random.normal(0, 0.2, (count, SIDE, SIDE, 1)).astype("float32")
    kinds, boxes = np.zeros((count, GRID, GRID), "int32"), np.zeros((count, GRID, GRID, 3), "f4")
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for image, kind_of, box_of in zip(images, kinds, boxes, strict=True):
        for left in (0, SIDE // 2):
            row, column = random.uniform(6, SIDE - 6), left + random.uniform(6, SIDE // 2 - 6)
            radius, kind = random.uniform(3, 6), random.integers(1, 3)
            away = np.abs(rows - row), np.abs(columns - column)
            image[np.hypot(*away) < radius if kind == 1 else np.maximum(*away) < radius] += 1
            cell = int(row // CELL), int(column // CELL)
            kind_of[cell] = kind
            box_of[cell] = np.array([row % CELL, column % CELL, radius]) / CELL
    return images, kinds, boxes


def detector() -> keras.Model:
    """Returns logits of three classes and a box for each cell."""
    inputs = x = keras.Input((SIDE, SIDE, 1))
    for filters, strides in ((12, 2), (24, 2), (32, 2), (48, 1)):
        x = keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    heads = [keras.layers.Conv2D(3, 1, name=name)(x) for name in ("kinds", "boxes")]
    return keras.Model(inputs, heads, name="detector")


def recall(kinds: np.ndarray, boxes: np.ndarray, true_kinds, true_boxes) -> float:
    """Returns the share of shapes with the right class and a box that overlaps by half or more."""
    there = true_kinds > 0
    told, true = boxes[there], true_boxes[there]
    low = np.maximum(told[:, :2] - told[:, 2:], true[:, :2] - true[:, 2:])
    high = np.minimum(told[:, :2] + told[:, 2:], true[:, :2] + true[:, 2:])
    both = np.prod(np.maximum(0, high - low), axis=-1)
    union = 4 * (told[:, 2] ** 2 + true[:, 2] ** 2) - both
    right = kinds.argmax(-1)[there] == true_kinds[there]
    return float(np.mean(right & (both >= 0.5 * union)))


def fit(model: keras.Model, scenes: tuple, rate: float, epochs: int, callbacks=()) -> None:
    """Trains both outputs; only cells with a shape have a box to learn."""
    images, kinds, boxes = scenes
    losses = [
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        keras.losses.Huber(0.1, reduction="mean_with_sample_weight"),
    ]
    model.compile(keras.optimizers.Adam(rate), losses, loss_weights=[1.0, 10.0])
    weights = [np.ones(kinds.shape, "float32"), (kinds > 0).astype("float32")]
    model.fit(images, [kinds, boxes], 32, epochs, 2, list(callbacks), sample_weight=weights)


def main(_: list[str]) -> None:
    """Trains in float, fine-tunes under the budget, exports, and judges the file."""
    logging.set_verbosity(logging.ERROR)  # The converter talks at length.
    keras.utils.set_random_seed(0)
    train, (images, kinds, boxes) = make_scenes(2000, seed=1), make_scenes(300, seed=2)
    float_model = detector()
    fit(float_model, train, rate=2e-3, epochs=24)
    before = recall(*float_model.predict(images, verbose=0), kinds, boxes)

    model = bmpq_tf.quantize_model(float_model, overrides={"boxes": 8})
    fit(model, train, rate=1e-3, epochs=6, callbacks=[bmpq_tf.BMPQCallback(flags.FLAGS.budget)])
    bmpq_tf.summary(model)
    report = bmpq_tf.export_tflite(model, flags.FLAGS.out, verify_with=images, overwrite=True)
    after = recall(*bmpq_tf.run_tflite(report.path, images), kinds, boxes)
    print(f"float32: {4 * float_model.count_params():,} bytes of weights, recall {before:.3f}")
    print(f"{report.path}: {report.tflite_bytes:,} bytes, recall {after:.3f}")


if __name__ == "__main__":
    app.run(main)
