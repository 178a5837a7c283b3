"""Quantized twins of Keras's layers. What they share is in the mixin; here stand only their names and kernels."""

import keras

from bmpq_tf.layers.quantized_layer import QuantizedLayer, register


@register(keras.layers.Dense, kernel=(-1,))
class QuantDense(QuantizedLayer, keras.layers.Dense):
    """`keras.layers.Dense` with a quantized kernel, one scale an output unit."""


@register(keras.layers.Conv2D, kernel=(-1,))
class QuantConv2D(QuantizedLayer, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a quantized kernel, one scale a filter."""


@register(keras.layers.DepthwiseConv2D, kernel=(-2, -1))
class QuantDepthwiseConv2D(QuantizedLayer, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with a quantized kernel, one scale for each input channel and multiplier."""
