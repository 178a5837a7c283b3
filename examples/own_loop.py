"""A training loop of your own, with `tf.GradientTape`, under a budget.

    python examples/own_loop.py --budget=10x --epochs=6    # on scikit-learn's digits

Keras's `CallbackList` drives `BMPQCallback` where there is no `fit`. Three things are all it takes:

- `model.compile(optimizer)`, and `model.optimizer` in the loop: its loss scale and its slots
  belong to the widths;
- `epochs` and `steps` (mini-batches in an epoch), as `fit` would know them;
- `on_train_begin` before the first step is traced, `on_epoch_begin` and `on_epoch_end` around
  every epoch, `on_train_end`.
"""

import os

# Before TensorFlow is imported; its start-up messages would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# isort: split
import keras
import tensorflow as tf
from absl import app, flags

import bmpq_tf

flags.DEFINE_string("budget", "10x", "What the model may take: '10x', '2.5 bits', '120 kB'.")
flags.DEFINE_integer("epochs", 6, "Epochs to train.", lower_bound=2)
flags.DEFINE_integer("seed", 0, "Of weights and data order.")


def float_model() -> keras.Model:
    """For 8x8 digits; ends in logits."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="stem"),
            keras.layers.Conv2D(24, 3, strides=2, padding="same", activation="relu", name="middle"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(32, activation="relu", name="hidden"),
            keras.layers.Dense(10, name="head"),
        ]
    )


def digits(seed: int) -> tf.data.Dataset:
    """Mini-batches of 32 images and their labels, in another order every epoch."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8, 1) / 16).astype("float32")
    return (
        tf.data.Dataset.from_tensor_slices((images, labels))
        .shuffle(len(labels), seed=seed)
        .batch(32, drop_remainder=True)
    )


def main(_: list[str]) -> None:
    """Quantizes a model and trains it step by step."""
    given = flags.FLAGS
    keras.utils.set_random_seed(given.seed)
    batches = digits(given.seed)
    model = bmpq_tf.quantize_model(float_model(), candidate_bits=(2, 4, 8))
    model.compile(keras.optimizers.Adam(2e-3))
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
            # Only mixed_float16 needs this; elsewhere it does nothing.
            scaled = model.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    callbacks = keras.callbacks.CallbackList(
        [bmpq_tf.BMPQCallback(given.budget)],
        add_history=True,
        model=model,
        epochs=given.epochs,
        steps=len(batches),
    )
    callbacks.on_train_begin()
    for epoch in range(given.epochs):
        callbacks.on_epoch_begin(epoch)
        losses = [float(step(*batch)) for batch in batches]
        callbacks.on_epoch_end(epoch, {"loss": sum(losses) / len(losses)})
        logs = {name: values[-1] for name, values in model.history.history.items()}
        print(
            f"epoch {epoch + 1}: loss {logs['loss']:.3f}, {logs['bmpq_compression']:.2f}x smaller "
            "than float32"
        )
    callbacks.on_train_end()
    bmpq_tf.summary(model)


if __name__ == "__main__":
    app.run(main)
