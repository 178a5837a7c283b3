"""Upsampling of images of open sizes in a form that the converter takes."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from bmpq_tf.export.converter.calls import calls_replaced
from bmpq_tf.model import keras_graph

_METHODS = ("nearest", "bilinear")


@contextlib.contextmanager
def of_open_sizes(model: keras.Model) -> Iterator[None]:
    """Has `UpSampling2D` resize images whose sizes are open.

    Keras repeats rows and columns by a reshape that loses the number of channels, which the
    convolution behind it needs, and asks for sizes where it interpolates.
    """
    layers = [
        layer
        for layer in keras_graph.sublayers(model)
        if isinstance(layer, keras.layers.UpSampling2D)
        and layer.interpolation in _METHODS
        and layer.data_format == "channels_last"
    ]
    with calls_replaced(layers, _resizing):
        yield


def _resizing(layer: keras.layers.UpSampling2D, call: Callable) -> Callable:
    @functools.wraps(call)
    def resized(inputs):
        if None not in inputs.shape[1:3]:
            return call(inputs)
        sizes = tf.shape(inputs)[1:3] * tf.constant(layer.size)
        return tf.image.resize(inputs, sizes, layer.interpolation)

    return resized
