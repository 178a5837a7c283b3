"""Takes a Keras classifier of yours to a packed .tflite file.

With a saved model and arrays (`images` and `labels` in an .npz, integer labels):

    python examples/own_model.py --model=mine.keras --data=mine.npz --budget=10x --out=mine.tflite

The trained model is saved beside it as mine_bmpq.keras, from which
`bmpq-export --verify_with=mine.npz` makes files of other kinds. Without flags it builds a small
model for scikit-learn's digits, to show the steps.
"""

import os

# Before TensorFlow is imported; its start-up messages would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# isort: split
import keras
import numpy as np
from absl import app, flags, logging

import bmpq_tf

flags.DEFINE_string(
    "model", None, "A .keras or .h5 model; it is trained on from the weights that it has."
)
flags.DEFINE_string("data", None, "An .npz file with images (as the model takes them) and labels.")
flags.DEFINE_string("budget", "10x", "What the model may take: '10x', '2.5 bits', '120 kB'.")
flags.DEFINE_integer("epochs", 12, "Epochs to train.", lower_bound=2)
flags.DEFINE_bool(
    "from_logits",
    None,
    "The model ends in logits, not in softmax; its last layer tells if this does not.",
)
flags.DEFINE_string("out", "runs/own_model.tflite", "Where the file goes.")
flags.DEFINE_enum(
    "optimize_for",
    "size",
    ["size", "latency"],
    "The smallest file, or the fastest on a phone's processor.",
)
flags.DEFINE_integer("seed", 0, "Of weights and data order.")


def example_model() -> keras.Model:
    """Any Keras classifier will do; this is one for 8x8 digits."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(24, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(48, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def example_data() -> tuple[np.ndarray, np.ndarray]:
    """Images as float32 and their labels."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return (pixels.reshape(-1, 8, 8, 1) / 16).astype("float32"), labels


def load(path: str) -> keras.Model:
    """Loads a model without its loss and optimizer; .h5 files of Keras 2 and of tfmot too."""
    if path.endswith(".h5"):
        return bmpq_tf.load_keras2_model(path)
    return keras.models.load_model(path, compile=False)


def check_classifier(model: keras.Model, labels: np.ndarray) -> None:
    """Raises ValueError if this script's loss and accuracy are not for the model and labels."""
    shapes = [tuple(output.shape) for output in model.outputs]
    if len(model.inputs) != 1 or len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] == 1:
        raise ValueError(
            "This script trains classifiers: one input, and one output of a value for each class. "
            f"Received: a model with outputs {shapes}. "
            "For another, copy the script and change its loss and metrics."
        )
    if labels.min() < 0 or labels.max() >= shapes[0][1]:
        raise ValueError(
            f"Labels count from 0 to {shapes[0][1] - 1}, as the model has outputs for. Received: "
            f"labels from {labels.min()} to {labels.max()}."
        )


def read_data(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of an .npz file."""
    with np.load(path, allow_pickle=False) as arrays:
        if not {"images", "labels"} <= set(arrays.files):
            raise ValueError(
                f"The arrays are called images and labels. Received: {', '.join(arrays.files)} in "
                f"'{path}'. Save them with np.savez('{path}', images=x, labels=y)."
            )
        images, labels = arrays["images"], arrays["labels"]
    if labels.shape == (len(images), 1):
        labels = labels[:, 0]  # As keras.datasets has them.
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"Each image needs one integer label. Received: images {images.shape}, labels "
            f"{labels.shape} {labels.dtype}. If they are one-hot, save labels=y.argmax(-1)."
        )
    return images, labels


def main(_: list[str]) -> None:
    """Quantizes, trains under the budget, exports, and checks the file."""
    logging.set_verbosity(logging.ERROR)  # The converter talks at length.
    given = flags.FLAGS
    if bool(given.model) != bool(given.data):
        raise ValueError(
            f"A model of yours needs data of yours, and they it. Received: --model={given.model}, "
            f"--data={given.data}. Give both."
        )
    # Now, and not after the training, if nothing can be written there.
    os.makedirs(os.path.dirname(given.out) or ".", exist_ok=True)
    keras.utils.set_random_seed(given.seed)
    images, labels = read_data(given.data) if given.data else example_data()
    float_model = load(given.model) if given.model else example_model()
    check_classifier(float_model, labels)
    from_logits = (
        not bmpq_tf.ends_in_softmax(float_model) if given.from_logits is None else given.from_logits
    )
    order = np.random.default_rng(given.seed).permutation(len(labels))
    test, train = np.split(order, [len(order) // 5])

    model = bmpq_tf.quantize_model(float_model, candidate_bits=(2, 4, 8))
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
        metrics=["accuracy"],
    )
    model.fit(
        images[train],
        labels[train],
        validation_data=(images[test], labels[test]),
        epochs=given.epochs,
        callbacks=[bmpq_tf.BMPQCallback(given.budget)],
        verbose=2,
    )
    bmpq_tf.summary(model)
    model.save(f"{os.path.splitext(given.out)[0]}_bmpq.keras")
    report = bmpq_tf.export_tflite(
        model, given.out, optimize_for=given.optimize_for, verify_with=images[test], overwrite=True
    )
    print(
        f"{report.path}: {report.tflite_bytes:,} bytes, {report.compression:.1f}x fewer parameter "
        "bits than float32;"
    )
    (answers,) = bmpq_tf.run_tflite(report.path, images[test])
    accuracy = np.mean(answers.argmax(-1) == labels[test])
    print(
        f"accuracy in LiteRT {accuracy:.2%}, top-1 equal to Keras on {report.parity.agreement:.2%} "
        f"of {report.parity.examples} test images"
    )


if __name__ == "__main__":
    app.run(main)
