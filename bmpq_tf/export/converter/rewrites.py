"""Parts of a model written for the converter in another way that computes the same."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from bmpq_tf._compat import tensorflow as tensorflow_compat
from bmpq_tf._compat.keras_numpy import FUNCTIONS
from bmpq_tf.export.converter.calls import calls_replaced
from bmpq_tf.model import keras_graph

# Eigen's rational approximation, which TensorFlow computes with too; beyond the limit it is 1.
_ERF_LIMIT = 4.0
_ERF_ABOVE = (
    *(-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05),
    *(-7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02),
)
_ERF_BELOW = (
    *(-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03),
    *(-7.37332916720468e-03, -1.42647390514189e-02),
)
_ERROR_FUNCTIONS = ("Erf", "Erfc")
_ANY_SHAPE: Any = None
_FLOATS = tf.TensorSpec(_ANY_SHAPE, tf.float32)


@contextlib.contextmanager
def one_axis_softmax(model: keras.Model) -> Iterator[None]:
    """While it lasts, layers that take a softmax over several axes join these to one first.

    Keras writes it with `exp` and `log`, and TFLite's operator takes one axis.
    """
    layers = [
        layer
        for layer in keras_graph.sublayers(model)
        if isinstance(layer, keras.layers.Softmax)
        and isinstance(layer.axis, (list, tuple))
        and len(layer.axis) > 1
    ]
    with calls_replaced(layers, _over_one_axis):
        yield


@contextlib.contextmanager
def sums_along_any_axis() -> Iterator[None]:
    """While it lasts, `tf.nn.bias_add` of channels that are not last is a sum.

    The converter has no builtin for it, and Keras takes it for a sum of two tensors where the
    second looks like a bias, as those of a batch of one do.
    """
    before = tf.nn.bias_add

    def added(value, bias, data_format=None, name=None):
        if not (data_format or "").startswith("NC"):
            return before(value, bias, data_format=data_format, name=name)
        return value + tf.reshape(bias, [-1, *[1] * (len(value.shape) - 2)])

    tf.nn.bias_add = added
    try:
        yield
    finally:
        tf.nn.bias_add = before


@contextlib.contextmanager
def plain_extremes() -> Iterator[None]:
    """While it lasts, `keras.ops.argmax` and `argmin` are TensorFlow's own.

    Keras tells -0.0 from 0.0 by their bits, which no builtin does, and no model by its answers.
    """
    before = {name: getattr(FUNCTIONS, name) for name in ("argmax", "argmin")}
    for name in before:
        setattr(FUNCTIONS, name, functools.partial(_place, getattr(tf, name)))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(FUNCTIONS, name, function)


def _place(find: Callable, x, axis: int | None = None, keepdims: bool = False):
    x = tf.convert_to_tensor(x)
    if axis is None:
        place = find(tf.reshape(x, [-1]), output_type=tf.int32)
        return tf.reshape(place, [1] * len(x.shape)) if keepdims else place
    place = find(x, axis=axis, output_type=tf.int32)
    return tf.expand_dims(place, axis) if keepdims else place


def _over_one_axis(layer: keras.layers.Softmax, call: Callable) -> Callable:
    @functools.wraps(call)
    def joined(inputs, mask=None):
        # Keras's own annotation is of one axis.
        several: Any = layer.axis
        rank = len(inputs.shape)
        last = sorted(axis % rank for axis in several)
        order = [*(axis for axis in range(rank) if axis not in last), *last]
        back = [order.index(axis) for axis in range(rank)]
        moved = _transposed(inputs, order)
        sizes = tf.shape(moved)
        together = tf.concat([sizes[: -len(last)], [-1]], 0)
        if mask is not None:
            mask = _transposed(tf.broadcast_to(mask, tf.shape(inputs)), order)
            mask = tf.reshape(mask, together)
        rows = tf.reshape(moved, together)
        layer.axis = -1
        try:
            answers = call(rows, mask=mask)
        finally:
            layer.axis = several
        return _transposed(tf.reshape(answers, sizes), back)

    return joined


def _transposed(tensor, order: list[int]):
    return tensor if order == sorted(order) else tf.transpose(tensor, order)


class ErrorFunctions(tf.Module):
    """`Erf` and `Erfc`, which TFLite has no builtin for but in a `GELU`, from builtins: a quotient
    of polynomials, within 1e-6 of the error function.

    A module that is saved with it can be made to call it.
    """

    def __init__(self):
        super().__init__()
        self.functions = [
            tf.function(function, input_signature=[_FLOATS]).get_concrete_function()
            for function in (_erf, _erfc)
        ]

    def put(self, folder: str) -> None:
        """Calls them in a SavedModel that holds them, in the place of the operators."""
        names = [function.name for function in self.functions]
        tensorflow_compat.call_instead(folder, dict(zip(_ERROR_FUNCTIONS, names, strict=True)))


def has_error_functions(function) -> bool:
    """Whether a concrete function calls `Erf` or `Erfc`."""
    graph = function.graph.as_graph_def()
    inner = (node for one in graph.library.function for node in one.node_def)
    return any(node.op in _ERROR_FUNCTIONS for node in itertools.chain(graph.node, inner))


def _erf(values):
    x = tf.clip_by_value(values, -_ERF_LIMIT, _ERF_LIMIT)
    square = x * x
    above, below = (tf.math.polyval(list(factors), square) for factors in (_ERF_ABOVE, _ERF_BELOW))
    return x * above / below


def _erfc(values):
    return 1.0 - _erf(values)
