"""A small network for 8x8 digits that has each kind of convolution."""

import keras

from bmpq_research.models.blocks import channels, conv_bn


def digits_cnn(
    input_shape: tuple[int, int, int] = (8, 8, 1),
    num_classes: int = 10,
    channel_multiplier: float = 1.0,
) -> keras.Model:
    """Builds two convolutions, a depthwise-separable block and a classifier.

    About 25,000 weights at `channel_multiplier=1`.
    """
    inputs = keras.Input(input_shape, name="image")
    x = conv_bn(inputs, channels(32, channel_multiplier), name="stem")
    x = conv_bn(x, channels(48, channel_multiplier), strides=2, name="block1")
    x = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="block2_depthwise")(x)
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="block2_depthwise_bn")(x)
    x = conv_bn(x, channels(64, channel_multiplier), 1, name="block2")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(channels(64, channel_multiplier), activation="relu", name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, name="head")(x), name="digits_cnn")
