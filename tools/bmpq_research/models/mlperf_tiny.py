"""MLPerf Tiny's four networks, layer for layer as its reference has them, and its weights in them.

Source: https://github.com/mlcommons/tiny, benchmark/training, at 1afd2c9. Layers have biases beside
BatchNorm there, and pooling is an AveragePooling2D as large as the map. The classifiers return
logits here, where the reference ends in a softmax. BatchNorm has the reference's epsilon, and not
its momentum of 0.99, which is slow for the few steps of our runs.
"""

import functools
import os

import h5py
import keras
import numpy as np

from bmpq_research.models import blocks
from bmpq_research.models.blocks import channels

_EPSILON = 1e-3
_conv_bn = functools.partial(blocks.conv_bn, use_bias=True, epsilon=_EPSILON)
_depthwise_bn = functools.partial(blocks.depthwise_bn, use_bias=True, epsilon=_EPSILON)


def resnet8(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    channel_multiplier: float = 1.0,
) -> keras.Model:
    """Builds the ResNet-8 of image classification: 78,666 parameters.

    Its projections have no BatchNorm.
    """
    stages = [channels(filters, channel_multiplier) for filters in (16, 32, 64)]
    inputs = keras.Input(input_shape, name="image")
    x = _conv_bn(inputs, stages[0], name="stem")
    for stage, filters in enumerate(stages, start=1):
        strides, name = 1 if stage == 1 else 2, f"stage{stage}"
        shortcut = x
        x = _conv_bn(x, filters, strides=strides, name=f"{name}_a")
        x = _conv_bn(x, filters, relu=False, name=f"{name}_b")
        if strides > 1:
            shortcut = keras.layers.Conv2D(
                filters,
                1,
                strides,
                padding="same",
                kernel_initializer="he_normal",
                name=f"{name}_shortcut_conv",
            )(shortcut)
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
        x = keras.layers.ReLU(name=f"{name}_relu")(x)
    return _classifier(inputs, x, num_classes, "resnet8")


def ds_cnn(
    input_shape: tuple[int, int, int] = (49, 10, 1),
    num_classes: int = 12,
    channel_multiplier: float = 1.0,
) -> keras.Model:
    """Builds the DS-CNN of keyword spotting, for MFCCs of `(steps, coefficients, 1)`: 24,908
    parameters.

    It pools all 25 steps, as the reference's trained file does; its script has come to leave the
    last one out.
    """
    filters = channels(64, channel_multiplier)
    inputs = keras.Input(input_shape, name="features")
    x = _conv_bn(inputs, filters, (10, 4), 2, name="stem")
    x = keras.layers.Dropout(0.2, name="stem_dropout")(x)
    for number in range(1, 5):
        x = _depthwise_bn(x, name=f"block{number}_depthwise")
        x = _conv_bn(x, filters, 1, name=f"block{number}_pointwise")
    x = keras.layers.Dropout(0.4, name="dropout")(x)
    return _classifier(inputs, x, num_classes, "ds_cnn")


def mobilenet_v1_025(
    input_shape: tuple[int, int, int] = (96, 96, 3),
    num_classes: int = 2,
    channel_multiplier: float = 1.0,
) -> keras.Model:
    """Builds the MobileNetV1 of visual wake words, a quarter as wide as Howard et al.

    2017: 221,794 parameters.

    Args:
        input_shape: height, width, channels.
        num_classes: how many logits.
        channel_multiplier: of the quarter's channels, not of the whole network's.
    """
    inputs = keras.Input(input_shape, name="image")
    x = _conv_bn(inputs, channels(8, channel_multiplier), strides=2, name="stem")
    stages = (
        (16, 1),
        (32, 2),
        (32, 1),
        (64, 2),
        (64, 1),
        (128, 2),
        *((128, 1),) * 5,
        (256, 2),
        (256, 1),
    )
    for number, (filters, strides) in enumerate(stages, start=1):
        x = _depthwise_bn(x, strides, name=f"block{number}_depthwise")
        x = _conv_bn(x, channels(filters, channel_multiplier), 1, name=f"block{number}_pointwise")
    return _classifier(inputs, x, num_classes, "mobilenet_v1_025")


def autoencoder(
    input_shape: tuple[int] = (640,),
    num_classes: int | None = None,
    channel_multiplier: float = 1.0,
) -> keras.Model:
    """Builds the autoencoder of anomaly detection: 269,992 parameters.

    Args:
        input_shape: how many values a vector has; as many come out.
        num_classes: not used: it has none.
        channel_multiplier: of the layers between; the narrowest has 8 at 1.

    Raises:
        ValueError: the inputs are not vectors.
    """
    if len(input_shape) != 1:
        raise ValueError(
            f"The autoencoder takes vectors, such as (640,). Received: input_shape={input_shape}. "
            "Take another model for images."
        )
    inputs = keras.Input(input_shape, name="features")
    x = inputs
    for number, units in enumerate((128, 128, 128, 128, 8, 128, 128, 128, 128), start=1):
        x = keras.layers.Dense(channels(units, channel_multiplier), name=f"dense{number}")(x)
        x = blocks.bn_relu(x, _EPSILON, name=f"dense{number}")
    return keras.Model(
        inputs, keras.layers.Dense(input_shape[0], name="head")(x), name="autoencoder"
    )


def load_reference(model: keras.Model, path: str | os.PathLike) -> None:
    """Gives one of these networks the weights of MLPerf Tiny's own `.h5` file of it.

    Args:
        model: as one of the functions above builds it by default.
        path: of `pretrainedResnet.h5`, `vww_96.h5` or `ad01.h5`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of another network; the message says where they differ.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"There are no reference weights. Looked for '{path}'. They are in "
            "github.com/mlcommons/tiny, benchmark/training/*/trained_models."
        )
    weights = _weights_in(path)
    for number, (ours, theirs) in enumerate(zip(model.weights, weights, strict=False)):
        if tuple(ours.shape) != theirs.shape:
            raise ValueError(
                f"The weights are of another network. Received: '{path}', whose weight {number} "
                f"has the shape {theirs.shape}, where {model.name}'s '{ours.path}' has "
                f"{tuple(ours.shape)}."
            )
    if len(weights) != len(model.weights):
        raise ValueError(
            f"The weights are of another network. Received: '{path}' with {len(weights)} weights, "
            f"where {model.name} has {len(model.weights)}."
        )
    model.set_weights(weights)


def _weights_in(path: str | os.PathLike) -> list[np.ndarray]:
    """Returns the weights of a model that Keras 2 saved, in its order.

    Keras 3 does not load all of them: its DepthwiseConv2D refuses the `groups` of the configs.
    """
    with h5py.File(path) as file:
        layers = file["model_weights"]
        return [
            np.asarray(layers[layer][weight])
            for layer in layers.attrs["layer_names"]
            for weight in layers[layer].attrs["weight_names"]
        ]


def _classifier(inputs, x, num_classes: int, name: str) -> keras.Model:
    x = keras.layers.AveragePooling2D(x.shape[1:3], name="pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(num_classes, kernel_initializer="he_normal", name="head")(x)
    return keras.Model(inputs, x, name=name)
