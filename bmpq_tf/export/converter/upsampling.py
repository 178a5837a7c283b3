"""Upsampling of images as one operator that every runtime has."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from bmpq_tf.export.converter.calls import calls_replaced
from bmpq_tf.model import keras_graph

_METHODS = ("nearest", "bilinear")


@contextlib.contextmanager
def as_resizing(model: keras.Model) -> Iterator[None]:
    """Has `UpSampling2D`, and `UpSampling1D` of known lengths, resize images.

    Keras repeats rows and columns, which becomes a TILE that TFLM does not have; of open sizes by a
    reshape that loses the number of channels, which the convolution behind it needs. Where it
    interpolates, it asks for sizes.
    """
    sequences = [
        layer
        for layer in keras_graph.sublayers(model)
        if isinstance(layer, keras.layers.UpSampling1D)
    ]
    layers = [
        layer
        for layer in keras_graph.sublayers(model)
        if isinstance(layer, keras.layers.UpSampling2D)
        and layer.interpolation in _METHODS
        and layer.data_format == "channels_last"
    ]
    with calls_replaced(layers, _resizing), calls_replaced(sequences, _lengthening):
        yield


def _lengthening(layer: keras.layers.UpSampling1D, call: Callable) -> Callable:
    @functools.wraps(call)
    def lengthened(inputs):
        steps = inputs.shape[1]
        if steps is None:
            return call(inputs)
        column = tf.expand_dims(inputs, 2)
        return tf.squeeze(tf.image.resize(column, [steps * layer.size, 1], "nearest"), 2)

    return lengthened


def _resizing(layer: keras.layers.UpSampling2D, call: Callable) -> Callable:
    @functools.wraps(call)
    def resized(inputs):
        known = inputs.shape[1:3]
        if None in known:
            sizes = tf.shape(inputs)[1:3] * tf.constant(layer.size)
        else:
            sizes = [size * factor for size, factor in zip(known, layer.size, strict=True)]
        return tf.image.resize(inputs, sizes, layer.interpolation)

    return resized
