"""What the models share."""

import keras

from bmpq_tf.layers import FusedBatchNormalization


def channels(base: int, channel_multiplier: float) -> int:
    """Returns a layer's channels under a multiplier, at least 4."""
    return max(4, round(base * channel_multiplier))


def conv_bn(
    x, filters: int, kernel_size: int = 3, strides: int = 1, *, relu: bool = True, name: str
):
    """Convolution without bias, BatchNorm and, where asked, ReLU."""
    x = keras.layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = FusedBatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x
