"""Architectures that users bring.

A float model and a batch for each, small inputs, weights at random.
"""

from collections.abc import Callable

import keras
import numpy as np

layers = keras.layers


def _application(name: str, size: int, **kwargs) -> Callable[[], keras.Model]:
    return lambda: getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None, **kwargs
    )


def _vgg16() -> keras.Model:
    # Its own top has a hundred million weights, which would test nothing more.
    base = keras.applications.VGG16(
        weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg"
    )
    return keras.Model(base.input, layers.Dense(10, name="head")(base.output), name="vgg16")


def _transformer() -> keras.Model:
    """A text classifier: embedding, one encoder block with attention, a pooled head."""
    tokens = keras.Input((12,), dtype="int32", name="tokens")
    x = layers.Embedding(50, 16, name="embedding")(tokens)
    attended = layers.MultiHeadAttention(2, 8, name="attention")(x, x)
    x = layers.LayerNormalization(name="norm1")(layers.Add(name="add1")([x, attended]))
    hidden = layers.Dense(32, activation="gelu", name="up")(x)
    x = layers.LayerNormalization(name="norm2")(
        layers.Add(name="add2")([x, layers.Dense(16, name="down")(hidden)])
    )
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(tokens, layers.Dense(4, name="head")(x), name="transformer")


def _time_series() -> keras.Model:
    signal = keras.Input((32, 3), name="signal")
    x = signal
    for number, filters in enumerate((8, 16)):
        x = layers.Conv1D(
            filters, 5, strides=2, padding="causal", use_bias=False, name=f"conv{number}"
        )(x)
        x = layers.ReLU(name=f"relu{number}")(layers.BatchNormalization(name=f"bn{number}")(x))
    x = layers.SeparableConv1D(
        16, 3, dilation_rate=2, padding="same", activation="relu", name="separable"
    )(x)
    return keras.Model(
        signal, layers.Dense(2, name="head")(layers.Flatten(name="flatten")(x)), name="time_series"
    )


def _unet() -> keras.Model:
    """Two levels down and up, with transposed convolutions and skip connections.

    A class for each pixel.
    """
    image = keras.Input((16, 16, 1), name="image")
    x, skips = image, []
    for level, filters in enumerate((8, 16)):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"down{level}")(x)
        skips.append(x)
        x = layers.MaxPooling2D(name=f"pool{level}")(x)
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="bottom")(x)
    for level, filters in ((1, 16), (0, 8)):
        x = layers.Conv2DTranspose(filters, 2, strides=2, name=f"up{level}")(x)
        x = layers.Concatenate(name=f"skip{level}")([x, skips[level]])
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"merge{level}")(x)
    return keras.Model(image, layers.Conv2D(3, 1, name="head")(x), name="unet")


def _two_by_two() -> keras.Model:
    """An image and a vector in, a class and a number out."""
    image, vector = keras.Input((8, 8, 2), name="image"), keras.Input((5,), name="vector")
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    y = layers.Dense(8, activation="relu", name="dense")(vector)
    both = layers.Dense(16, activation="relu", name="both")(layers.Concatenate(name="join")([x, y]))
    return keras.Model(
        [image, vector],
        [layers.Dense(3, name="kind")(both), layers.Dense(1, name="amount")(both)],
        name="two_by_two",
    )


def _residual(name: str) -> keras.Model:
    image = keras.Input((8, 8, 4))
    return keras.Model(
        image,
        layers.Add(name=f"{name}_add")(
            [image, layers.Conv2D(4, 3, padding="same", name=f"{name}_conv")(image)]
        ),
        name=name,
    )


def _nested() -> keras.Model:
    """A functional model that holds a sequential one that holds a functional one, and another
    functional one twice.
    """
    shared = _residual("shared")
    depthwise = layers.DepthwiseConv2D(3, padding="same", name="depthwise")
    outer = keras.Sequential(
        [keras.Input((8, 8, 4)), _residual("inner"), layers.ReLU(name="relu"), depthwise],
        name="outer",
    )
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="stem")(image)
    x = layers.Flatten(name="flatten")(shared(outer(shared(x))))
    return keras.Model(image, layers.Dense(3, name="head")(x), name="nested")


SMALL: dict[str, Callable[[], keras.Model]] = {
    "transformer": _transformer,
    "time_series": _time_series,
    "unet": _unet,
    "two_by_two": _two_by_two,
    "nested": _nested,
}
LARGE: dict[str, Callable[[], keras.Model]] = {
    "MobileNetV2": _application("MobileNetV2", 32),
    "MobileNetV3Small": _application("MobileNetV3Small", 32),
    "EfficientNetV2B0": _application("EfficientNetV2B0", 32),
    "ResNet50": _application("ResNet50", 32),
    "DenseNet121": _application("DenseNet121", 32),
    "VGG16": _vgg16,
    "Xception": _application("Xception", 71),
}
ZOO = {**SMALL, **LARGE}


def example_batch(model: keras.Model, count: int):
    """Returns inputs for a model, and targets for a squared error of each of its outputs.

    An array, or a list where there are several.
    """
    generator = np.random.default_rng(0)

    def values(tensor):
        shape = (count, *tensor.shape[1:])
        if tensor.dtype == "int32":
            return generator.integers(0, 50, shape).astype("int32")
        return generator.standard_normal(shape).astype("float32")

    def several(tensors):
        return values(tensors[0]) if len(tensors) == 1 else [values(tensor) for tensor in tensors]

    return several(model.inputs), several(model.outputs)
