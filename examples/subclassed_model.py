"""A model of your own class, with blocks of your own, quantized where it stands.

    python examples/subclassed_model.py --budget=10x --out=runs/subclassed.tflite

Shows: `quantize_model` changes a subclassed model's layers in place, and it is compiled anew; saved
and loaded by registered classes, it answers as the file. Data: scikit-learn's digits.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Before TensorFlow is imported.

# isort: split
import keras
import numpy as np
from absl import app, flags, logging
from sklearn.datasets import load_digits

import bmpq_tf

flags.DEFINE_string("budget", "10x", "What the model may take: '10x', '2.5 bits', '4 kB'.")
flags.DEFINE_string("out", "runs/subclassed.tflite", "Where the file goes.")


@keras.saving.register_keras_serializable("examples")
class Residual(keras.layers.Layer):
    """Adds to its input what two convolutions make of it."""

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.first = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")
        self.second = keras.layers.Conv2D(filters, 3, padding="same")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], self.filters))

    def call(self, inputs):
        return keras.ops.relu(inputs + self.second(self.first(inputs)))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable("examples")
class Classifier(keras.Model):
    """A stem, a list of blocks, and a head that returns logits."""

    def __init__(self, filters: int = 16, blocks: int = 2, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.stem = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")
        self.blocks = [Residual(filters) for _ in range(blocks)]
        self.pool, self.head = keras.layers.Flatten(), keras.layers.Dense(10)

    def call(self, inputs):
        x = self.stem(inputs)
        for block in self.blocks:
            x = block(x)
        return self.head(self.pool(x))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "blocks": len(self.blocks)}


def fit(model: keras.Model, data: tuple, epochs: int, callbacks=()) -> None:
    """Trains a classifier that returns logits."""
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*data, epochs=epochs, callbacks=list(callbacks), verbose=2)


def main(_: list[str]) -> None:
    """Trains in float, then under the budget, saves, loads, exports, and judges the file."""
    logging.set_verbosity(logging.ERROR)  # The converter talks at length.
    keras.utils.set_random_seed(0)
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8, 1) / 16).astype("float32")
    test, train = np.split(np.random.default_rng(0).permutation(len(labels)), [360])
    model, data = Classifier(name="classifier"), (images[train], labels[train])
    fit(model, data, epochs=10)
    before = np.mean(model.predict(images[test], verbose=0).argmax(-1) == labels[test])
    print(f"float32: {4 * model.count_params():,} bytes of weights, accuracy {before:.3f}")

    bmpq_tf.quantize_model(model)
    fit(model, data, epochs=8, callbacks=[bmpq_tf.BMPQCallback(flags.FLAGS.budget)])
    bmpq_tf.summary(model)
    out = flags.FLAGS.out
    report = bmpq_tf.export_tflite(model, out, verify_with=images[test], overwrite=True)
    model.save(f"{out}.keras")
    loaded = keras.models.load_model(f"{out}.keras")
    same = bmpq_tf.compare_tflite(loaded, out, images[test]).holds
    print(f"{out}.keras: loaded, it answers as the file: {same}")
    after = np.mean(bmpq_tf.run_tflite(out, images[test])[0].argmax(-1) == labels[test])
    print(f"{report.path}: {report.tflite_bytes:,} bytes, accuracy {after:.3f}")


if __name__ == "__main__":
    app.run(main)
