"""Trains a float network and a peer's quantized one in turn, inside the peer's own environment, and
prints seconds as JSON.

Usage: python train.py PEER NETWORK BATCH_SIZE STEPS ROUNDS SECONDS
"""

import json
import math
import os
import sys
import time
import types

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# tfmot wants Keras 2, which TensorFlow 2.16 and later have as tf_keras.
os.environ["TF_USE_LEGACY_KERAS"] = str(int("tfmot" in sys.argv))

import numpy as np
import tensorflow as tf
from networks import NETWORKS


def tfmot(build, inputs):
    """tfmot's default scheme: weights and activations at 8 bits."""
    from tensorflow_model_optimization.quantization.keras import quantize_model

    return quantize_model(tf.keras.Model(inputs, build(tf.keras.layers, inputs)))


def qkeras(build, inputs, **more):
    """QKeras with weights at 4 bits and a scale a channel.

    With `alpha=1`, fixed steps of 1/8, most of these weights are zero.
    """
    from qkeras import QConv2D, QDense, QDepthwiseConv2D, quantized_bits

    def layer(kind, name):
        return lambda *args, **kwargs: kind(
            *args, **{name: quantized_bits(4, 0, 1, alpha="auto")}, **kwargs
        )

    twins = {
        "Conv2D": layer(QConv2D, "kernel_quantizer"),
        "DepthwiseConv2D": layer(QDepthwiseConv2D, "depthwise_quantizer"),
        "Dense": layer(QDense, "kernel_quantizer"),
        **more,
    }
    return tf.keras.Model(inputs, build(_with(tf.keras.layers, twins), inputs))


def qkeras_with_activations(build, inputs):
    """The same, and each ReLU quantized at 8 bits, up to 8."""
    from qkeras import QActivation, quantized_relu

    return qkeras(build, inputs, ReLU=lambda: QActivation(quantized_relu(8, 3)))


def hgq2(build, inputs):
    """HGQ2 with its default learned widths.

    It has no depthwise convolution, so that one stays float.
    """
    import hgq.layers
    import keras

    twins = {name: getattr(hgq.layers, f"Q{name}") for name in ("Conv2D", "Dense")}
    return keras.Model(inputs, build(_with(keras.layers, twins), inputs))


def _with(layers, twins):
    return types.SimpleNamespace(
        **{
            **{name: getattr(layers, name) for name in dir(layers) if not name.startswith("_")},
            **twins,
        }
    )


CONTESTANTS = {
    "tfmot": {"weights and activations at 8 bits": tfmot},
    "qkeras": {
        "weights at 4 bits": qkeras,
        "weights at 4 bits, ReLUs at 8": qkeras_with_activations,
    },
    "hgq2": {"its defaults": hgq2},
}


def main(peer, network, batch_size, steps, rounds, limit):
    """Prints `{"float": [seconds, ...], ...}`, one figure a round for each contestant of a peer.

    After `limit` seconds no further round starts.
    """
    keras = tf.keras
    keras.utils.set_random_seed(0)
    build, shape, _ = NETWORKS[network]
    inputs = keras.Input(shape)
    models = {"float": keras.Model(inputs, build(keras.layers, inputs))}
    models |= {name: make(build, keras.Input(shape)) for name, make in CONTESTANTS[peer].items()}
    generator = np.random.default_rng(0)
    images = tf.constant(generator.standard_normal((batch_size, *shape)), tf.float32)
    labels = tf.constant(generator.integers(0, 10, batch_size))
    for model in models.values():
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9), loss, metrics=["accuracy"], jit_compile=False
        )

    def turn(model):
        for _ in range(steps):
            model.train_on_batch(images, labels)

    print(
        json.dumps(
            alternate(
                {name: lambda model=model: turn(model) for name, model in models.items()},
                rounds,
                limit,
            )
        )
    )


def alternate(turns, rounds, limit):
    """Runs each turn once a round, forwards and backwards, and returns their seconds, as
    `benchmarks.measure.alternate`, which is not here.
    """
    seconds = {name: [] for name in turns}
    started = math.inf
    for number in range(rounds + 1):
        # Three rounds are timed whatever they take, as for our own models.
        if number > min(3, rounds) and time.perf_counter() - started > limit:
            break
        for name in list(turns)[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            turns[name]()
            if number:
                seconds[name].append(time.perf_counter() - start)
        # The first round traces, and is not timed.
        started = min(started, time.perf_counter())
    return seconds


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:6]), float(sys.argv[6]))
