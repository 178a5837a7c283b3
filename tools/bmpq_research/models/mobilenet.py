"""MobileNet in its CIFAR form."""

import keras

from bmpq_research.models.blocks import channels, conv_bn, depthwise_bn


def mobilenet(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    channel_multiplier: float = 1.0,
) -> keras.Model:
    """Builds the 13 depthwise-separable blocks of Howard et al.

    2017, with BatchNorm and one dense layer: 3.2 M weights.

    The strides of the stem and of the twelfth block are 1 here and not 2, for small images.
    """
    inputs = keras.Input(input_shape, name="image")
    x = conv_bn(inputs, channels(32, channel_multiplier), name="stem")
    blocks = (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *((512, 1),) * 5,
        (1024, 1),
        (1024, 1),
    )
    for number, (filters, strides) in enumerate(blocks, start=1):
        x = depthwise_bn(x, strides, name=f"block{number}_depthwise")
        x = conv_bn(x, channels(filters, channel_multiplier), 1, name=f"block{number}_pointwise")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, name="head")(x), name="mobilenet")
