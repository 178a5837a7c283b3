"""What the models share."""

import keras

from bmpq_tf.layers import FusedBatchNormalization


def channels(base: int, channel_multiplier: float) -> int:
    """Returns a layer's channels under a multiplier, at least 4."""
    return max(4, round(base * channel_multiplier))


def conv_bn(
    x,
    filters: int,
    kernel_size: int | tuple[int, int] = 3,
    strides: int = 1,
    *,
    relu: bool = True,
    use_bias: bool = False,
    epsilon: float = 1e-5,
    name: str,
):
    """Convolution, BatchNorm and, where asked, ReLU."""
    x = keras.layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same",
        use_bias=use_bias,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return bn_relu(x, epsilon, relu=relu, name=name)


def depthwise_bn(x, strides: int = 1, *, use_bias: bool = False, epsilon: float = 1e-5, name: str):
    """Depthwise convolution of 3x3, BatchNorm and ReLU."""
    # Keras's he_normal takes all channels for the fan of a depthwise kernel; it is one channel's
    # nine weights.
    start = keras.initializers.RandomNormal(stddev=(2 / 9) ** 0.5)
    x = keras.layers.DepthwiseConv2D(
        3,
        strides,
        padding="same",
        use_bias=use_bias,
        depthwise_initializer=start,
        name=f"{name}_conv",
    )(x)
    return bn_relu(x, epsilon, name=name)


def bn_relu(x, epsilon: float = 1e-5, *, relu: bool = True, name: str):
    """BatchNorm and, where asked, ReLU."""
    x = FusedBatchNormalization(momentum=0.9, epsilon=epsilon, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x
