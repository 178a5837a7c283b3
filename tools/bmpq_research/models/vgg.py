"""VGG in its CIFAR form."""

import keras

from bmpq_research.models.blocks import channels, conv_bn


def vgg16(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    channel_multiplier: float = 1.0,
) -> keras.Model:
    """Builds the 13 convolutions of Simonyan and Zisserman 2015, configuration D, with BatchNorm
    and one dense layer: 14.7 M weights.

    The three dense layers of the ImageNet form are one here, as is usual for small images; images
    of 64x64 are averaged before it.
    """
    inputs = keras.Input(input_shape, name="image")
    x = inputs
    for block, (filters, count) in enumerate(
        ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1
    ):
        for number in range(1, count + 1):
            x = conv_bn(x, channels(filters, channel_multiplier), name=f"block{block}_{number}")
        x = keras.layers.MaxPooling2D(name=f"block{block}_pool")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, name="head")(x), name="vgg16")
