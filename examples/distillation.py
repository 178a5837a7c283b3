"""Distillation: a float teacher trains a small student that is quantized under a budget.

    python examples/distillation.py --budget=12x --out=runs/student.tflite

Shows: Keras's own `Distiller` around a quantized student; `BMPQCallback(model=student)` says whose
budget it is; only the student is exported. Data: scikit-learn's digits.
"""

import os

# Before TensorFlow is imported; its start-up messages would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# isort: split
import keras
import numpy as np
from absl import app, flags, logging
from sklearn.datasets import load_digits

import bmpq_tf

flags.DEFINE_string("budget", "12x", "What the student may take: '12x', '2.5 bits', '4 kB'.")
flags.DEFINE_string("out", "runs/student.tflite", "Where the file goes.")


def network(filters: int, name: str) -> keras.Model:
    """Returns logits of ten digits."""
    inputs = x = keras.Input((8, 8, 1))
    for strides in (1, 2):
        x = keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dense(2 * filters, activation="relu")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(10)(x), name=name)


def fit(model: keras.Model, data: tuple, epochs: int, callbacks=()) -> None:
    """Trains a classifier that returns logits, or a distiller around one."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    model.fit(*data, epochs=epochs, callbacks=list(callbacks), verbose=2)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of digits that are read rightly."""
    return float(np.mean(logits.argmax(-1) == labels))


def main(_: list[str]) -> None:
    """Trains the teacher, then the student by it, exports the student and judges the file."""
    logging.set_verbosity(logging.ERROR)  # The converter talks at length.
    keras.utils.set_random_seed(0)
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8, 1) / 16).astype("float32")
    test, train = np.split(np.random.default_rng(0).permutation(len(labels)), [360])
    data = images[train], labels[train]

    teacher = network(48, "teacher")
    fit(teacher, data, epochs=12)
    student = bmpq_tf.quantize_model(network(12, "student"))
    # As an object: by its name, the default, Keras 3.15 would compare logits, not probabilities.
    apart = keras.distillation.LogitsDistillation(3.0, loss=keras.losses.KLDivergence())
    distiller = keras.distillation.Distiller(
        teacher=teacher, student=student, distillation_losses=apart
    )
    fit(distiller, data, 20, [bmpq_tf.BMPQCallback(flags.FLAGS.budget, model=student)])
    bmpq_tf.summary(student)
    report = bmpq_tf.export_tflite(
        student, flags.FLAGS.out, verify_with=images[test], overwrite=True
    )
    before = accuracy(teacher.predict(images[test], verbose=0), labels[test])
    after = accuracy(bmpq_tf.run_tflite(report.path, images[test])[0], labels[test])
    print(
        f"teacher, float32: {4 * teacher.count_params():,} bytes of weights, accuracy {before:.3f}"
    )
    print(f"{report.path}: {report.tflite_bytes:,} bytes, accuracy {after:.3f}")


if __name__ == "__main__":
    app.run(main)
