"""The four networks of MLPerf Tiny, layer for layer as its reference models are.

Source: github.com/mlcommons/tiny, benchmark/training. Convolutions and dense layers have biases
beside their BatchNorm there, and pooling is an average over all of the map. Logits here, where the
classifiers of the reference end in a softmax.
"""

import keras

from bmpq_research.models.blocks import channels
from bmpq_tf.layers import FusedBatchNormalization

_EPSILON = 1e-3


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
    x = _relu(_bn(_conv(inputs, stages[0], name="stem"), "stem"), "stem")
    for stage, filters in enumerate(stages, start=1):
        strides, name = 1 if stage == 1 else 2, f"stage{stage}"
        y = _relu(
            _bn(_conv(x, filters, strides=strides, name=f"{name}_a"), f"{name}_a"), f"{name}_a"
        )
        y = _bn(_conv(y, filters, name=f"{name}_b"), f"{name}_b")
        if strides > 1:
            x = _conv(x, filters, 1, strides, name=f"{name}_shortcut")
        x = _relu(keras.layers.Add(name=f"{name}_add")([x, y]), name)
    return _classifier(inputs, x, num_classes, "resnet8")


def _conv(x, filters: int, kernel_size=3, strides=1, *, name: str):
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same",
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)


def _bn(x, name: str):
    # The reference's epsilon; its momentum, 0.99, is slow for as few steps as there are here.
    return FusedBatchNormalization(momentum=0.9, epsilon=_EPSILON, name=f"{name}_bn")(x)


def _relu(x, name: str):
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _classifier(inputs, x, num_classes: int, name: str) -> keras.Model:
    x = keras.layers.AveragePooling2D(x.shape[1:3], name="pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(num_classes, kernel_initializer="he_normal", name="head")(x)
    return keras.Model(inputs, x, name=name)
