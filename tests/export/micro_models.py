"""Small models for microcontrollers, trained for a step."""

import keras
import numpy as np

from bmpq_tf import assign_bits, quantize_model

layers = keras.layers
RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.standard_normal((24, 8, 8, 3)).astype("float32")
# Weights that hardly trained amplify what rounding does.
OPTIONS = {"optimize_for": "micro", "calibrate_with": IMAGES, "tolerance": 0.5}


def network(filters=32) -> keras.Model:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU(name="relu0")(layers.BatchNormalization(name="bn0")(x))
    x = layers.Conv2D(filters, 3, strides=2, use_bias=False, name="wide")(x)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="bn1")(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    return keras.Model(image, layers.Dense(4, name="head")(x), name="micro_net")


def trained(widths=None, model=None, activation_bits=8, images=IMAGES) -> keras.Model:
    """A model with some widths, signs turned by BatchNorm, and ranges from a step of training."""
    model = quantize_model(model or network(), (2, 3, 4, 5, 6, 8), activation_bits=activation_bits)
    for layer in model.layers:
        if "BatchNorm" in type(layer).__name__:
            signs = np.where(RANDOM.random(layer.gamma.shape) < 0.3, -1, 1)
            layer.gamma.assign(RANDOM.uniform(0.5, 1, layer.gamma.shape) * signs)
    if widths:
        assign_bits(model, widths)
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(images, np.zeros((len(images), 4), "float32"), verbose=0)
    return model
