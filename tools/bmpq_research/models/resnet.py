"""Residual networks in their CIFAR form."""

from collections.abc import Sequence

import keras

from bmpq_research.models.blocks import channels, conv_bn


def resnet20(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    channel_multiplier: float = 1.0,
) -> keras.Model:
    """Builds the ResNet-20 of He et al.

    2016, section 4.2, with 1x1 projections where the shape changes: 0.27 M weights.
    """
    return _residual(
        "resnet20",
        input_shape,
        num_classes,
        [channels(filters, channel_multiplier) for filters in (16, 32, 64)],
        blocks=3,
    )


def resnet18(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    channel_multiplier: float = 1.0,
) -> keras.Model:
    """Builds the ResNet-18 of He et al.

    2016 with the 3x3 stem, and no pooling after it, that small images ask for: 11.2 M weights.
    """
    return _residual(
        "resnet18",
        input_shape,
        num_classes,
        [channels(filters, channel_multiplier) for filters in (64, 128, 256, 512)],
        blocks=2,
    )


def _residual(
    name: str, input_shape, num_classes: int, stages: Sequence[int], blocks: int
) -> keras.Model:
    inputs = keras.Input(input_shape, name="image")
    x = conv_bn(inputs, stages[0], name="stem")
    for stage, filters in enumerate(stages, start=1):
        for block in range(1, blocks + 1):
            x = _basic_block(
                x,
                filters,
                strides=2 if stage > 1 and block == 1 else 1,
                name=f"stage{stage}_block{block}",
            )
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, name="head")(x), name=name)


def _basic_block(x, filters: int, strides: int, name: str):
    shortcut = x
    if strides != 1 or x.shape[-1] != filters:
        shortcut = conv_bn(x, filters, 1, strides, relu=False, name=f"{name}_shortcut")
    x = conv_bn(x, filters, strides=strides, name=f"{name}_a")
    x = conv_bn(x, filters, relu=False, name=f"{name}_b")
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(name=f"{name}_relu")(x)
