"""Segmentation: a small U-Net that finds discs and squares in noise.

    python examples/segmentation.py --budget=8x --out=runs/segmentation.tflite

Shows: a trained float model that is fine-tuned under a budget; skip connections and transposed
convolutions; a metric of your own (mean intersection over union), taken from the file itself.
"""

import os

# Before TensorFlow is imported; its start-up messages would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# isort: split
import keras
import numpy as np
from absl import app, flags, logging

import bmpq_tf

flags.DEFINE_string("budget", "8x", "What the model may take: '8x', '2.5 bits', '4 kB'.")
flags.DEFINE_string("out", "runs/segmentation.tflite", "Where the file goes.")

SIDE, CLASSES = 32, 3  # background, disc, square


def make_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns noisy images (n, 32, 32, 1) with three shapes each, and each pixel's class."""
    random = np.random.default_rng(seed)
    images = random.normal(0, 0.3, (count, SIDE, SIDE, 1)).astype("float32")
    masks = np.zeros((count, SIDE, SIDE), "int32")
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for image, mask in zip(images, masks, strict=True):
        for _ in range(3):
            row, column = random.uniform(4, SIDE - 4, 2)
            radius, kind = random.uniform(3, 7), random.integers(1, CLASSES)
            away = np.abs(rows - row), np.abs(columns - column)
            inside = np.hypot(*away) < radius if kind == 1 else np.maximum(*away) < radius
            mask[inside] = kind
            image[inside] += random.uniform(0.5, 1.0)
    return images, masks


def unet() -> keras.Model:
    """Returns logits of three classes for each pixel."""

    def block(x, filters):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        return keras.layers.ReLU()(keras.layers.BatchNormalization()(x))

    inputs = x = keras.Input((SIDE, SIDE, 1))
    skips = []
    for filters in (8, 16):
        x = block(block(x, filters), filters)
        skips.append(x)
        x = keras.layers.MaxPooling2D()(x)
    x = block(block(x, 32), 32)
    for filters in (16, 8):
        x = keras.layers.Conv2DTranspose(filters, 2, strides=2)(x)
        x = block(keras.layers.Concatenate()([x, skips.pop()]), filters)
    return keras.Model(inputs, keras.layers.Conv2D(CLASSES, 1)(x), name="unet")


def mean_iou(logits: np.ndarray, masks: np.ndarray) -> float:
    """Returns the mean over the classes of intersection over union."""
    found, kinds = (
        logits.argmax(-1)[..., None] == np.arange(CLASSES),
        masks[..., None] == np.arange(CLASSES),
    )
    return float(np.mean((found & kinds).sum((0, 1, 2)) / (found | kinds).sum((0, 1, 2))))


def fit(model: keras.Model, data: tuple, rate: float, epochs: int, callbacks=()) -> None:
    """Trains for logits of classes."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(*data, epochs=epochs, callbacks=list(callbacks), verbose=2)


def main(_: list[str]) -> None:
    """Trains in float, fine-tunes under the budget, exports, and judges the file."""
    logging.set_verbosity(logging.ERROR)  # The converter talks at length.
    keras.utils.set_random_seed(0)
    train, (images, masks) = make_images(1500, seed=1), make_images(200, seed=2)
    float_model = unet()
    fit(float_model, train, rate=3e-3, epochs=8)
    before = mean_iou(float_model.predict(images, verbose=0), masks)

    model = bmpq_tf.quantize_model(float_model)
    fit(model, train, rate=1e-3, epochs=6, callbacks=[bmpq_tf.BMPQCallback(flags.FLAGS.budget)])
    bmpq_tf.summary(model)
    report = bmpq_tf.export_tflite(model, flags.FLAGS.out, verify_with=images, overwrite=True)
    (logits,) = bmpq_tf.run_tflite(report.path, images)
    print(f"float32: {4 * float_model.count_params():,} bytes of weights, mean IoU {before:.3f}")
    print(f"{report.path}: {report.tflite_bytes:,} bytes, mean IoU {mean_iou(logits, masks):.3f}")


if __name__ == "__main__":
    app.run(main)
