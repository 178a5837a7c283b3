"""Text: which library does a paragraph of documentation come from: Python, NumPy or Keras?

    python examples/text_classifier.py --budget=8x --out=runs/text_classifier.tflite

Shows: an embedding, which has most of the weights, and attention under a budget; words become
numbers before the model, since TFLite has no table of words. The text is packages' docstrings.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Before TensorFlow is imported.

# isort: split
import collections
import importlib
import inspect
import re

import keras
import numpy as np
from absl import app, flags, logging

import bmpq_tf

flags.DEFINE_string("budget", "8x", "What the model may take: '8x', '2.5 bits', '40 kB'.")
flags.DEFINE_string("out", "runs/text_classifier.tflite", "Where the file goes.")

SOURCES = (
    "argparse asyncio collections inspect logging pathlib subprocess threading unittest",
    "numpy numpy.ma numpy.random numpy.linalg numpy.fft numpy.polynomial",
    "keras.layers keras.ops keras.losses keras.metrics keras.callbacks keras.utils",
)
WORDS, LENGTH = 2000, 32  # words that are known, and of a paragraph


def paragraphs(modules: str) -> list[tuple[str, ...]]:
    """Returns the words of each paragraph in the docstrings of some modules, in a fixed order."""
    told = set()
    for module in map(importlib.import_module, modules.split()):
        things = [getattr(module, name, None) for name in dir(module)]
        for one in filter(inspect.isclass, tuple(things)):
            things += [getattr(one, name, None) for name in dir(one) if not name.startswith("_")]
        for text in map(inspect.getdoc, things):
            parts = (text or "").lower().split("\n\n")
            told.update(tuple(re.findall("[a-z]+", part)) for part in parts)
    return sorted(words for words in told if len(words) >= 10)


def made_numbers() -> tuple[np.ndarray, np.ndarray]:
    """Returns int32 word numbers (n, 32), 0 for none and 1 for unknown ones, and the sources."""
    pairs = [(words, label) for label, of in enumerate(SOURCES) for words in paragraphs(of)]
    counts = collections.Counter(word for words, _ in pairs for word in words)
    for name in ("np", "numpy", "keras"):  # They would tell too easily.
        counts.pop(name)
    number = {word: index for index, (word, _) in enumerate(counts.most_common(WORDS), start=2)}
    rows = [[number.get(word, 1) for word in words] for words, _ in pairs]
    x = keras.utils.pad_sequences(rows, LENGTH, padding="post", truncating="post")
    return x, np.array([label for _, label in pairs])


def classifier() -> keras.Model:
    """Returns logits of the three sources."""
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(WORDS + 2, 32, name="words")(inputs)
    seen = keras.layers.MultiHeadAttention(2, 16, dropout=0.1, name="attention")(x, x)
    x = keras.layers.LayerNormalization()(keras.layers.Add()([x, seen]))
    x = keras.layers.Dropout(0.3)(keras.layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x), name="text")


def fit(model: keras.Model, x, y, rate: float, epochs: int, callbacks=()) -> None:
    """Trains a classifier that returns logits."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(x, y, epochs=epochs, callbacks=list(callbacks), verbose=2)


def main(_: list[str]) -> None:
    """Trains in float, fine-tunes under the budget, exports, and judges the file."""
    logging.set_verbosity(logging.ERROR)  # The converter talks at length.
    keras.utils.set_random_seed(0)
    x, y = made_numbers()
    test, train = np.split(np.random.default_rng(0).permutation(len(y)), [len(y) // 5])
    float_model = classifier()
    fit(float_model, x[train], y[train], 2e-3, 8)
    before = np.mean(float_model.predict(x[test], verbose=0).argmax(-1) == y[test])

    model = bmpq_tf.quantize_model(float_model)
    fit(model, x[train], y[train], 1e-3, 5, [bmpq_tf.BMPQCallback(flags.FLAGS.budget)])
    bmpq_tf.summary(model)
    report = bmpq_tf.export_tflite(model, flags.FLAGS.out, verify_with=x[test], overwrite=True)
    (logits,) = bmpq_tf.run_tflite(report.path, x[test])
    after = np.mean(logits.argmax(-1) == y[test])
    print(f"float32: {4 * float_model.count_params():,} bytes of weights, accuracy {before:.3f}")
    print(f"{report.path}: {report.tflite_bytes:,} bytes, accuracy {after:.3f}")


if __name__ == "__main__":
    app.run(main)
