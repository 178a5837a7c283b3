"""Einsums in a form that the converter takes."""

import contextlib
import functools
import string
from collections.abc import Callable, Iterator

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.export.converter.calls import calls_replaced
from bmpq_tf.model import keras_graph

# Of a product that LiteRT's integer kernels broadcast.
_LARGEST_RANK = 4


@contextlib.contextmanager
def in_known_forms(model: keras.Model) -> Iterator[None]:
    """Rewrites the einsums that the converter refuses, or of which it makes what no runtime
    prepares.

    What sums over nothing is a product: `bsd,d->bsd`. A kernel whose every axis is one of the
    input's gets one of its own, which is taken off the result: `bsd,sd->bs` becomes
    `bsd,zsd->zbs`. Without it the converter takes a column for a row.
    """
    layers = [
        layer
        for layer in keras_graph.sublayers(model)
        if isinstance(layer, keras.layers.EinsumDense) and layer.built
    ]
    products = [layer for layer in layers if _is_product(layer.equation)]
    bound = [
        (layer, layer.equation, keras_compat.einsum_kernel(layer))
        for layer in layers
        if layer not in products and not _has_free_axis(layer.equation)
    ]
    with (
        calls_replaced(products, _as_product),
        calls_replaced([layer for layer, *_ in bound], lambda _, call: _without_first_axis(call)),
        contextlib.ExitStack() as undone,
    ):
        for layer, equation, kernel in bound:
            with_axis = keras.Variable(kernel.value[None], trainable=False, autocast=False)
            undone.enter_context(keras_compat.with_einsum_kernel(layer, with_axis))
            undone.callback(setattr, layer, "equation", equation)
            layer.equation = _with_axis(equation)
        yield


def _split(equation: str) -> tuple[str, str, str]:
    operands, output = equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    return inputs, kernel, output


def _is_product(equation: str) -> bool:
    inputs, kernel, output = _split(equation)
    return set(inputs) | set(kernel) == set(output)


def _has_free_axis(equation: str) -> bool:
    inputs, kernel, _ = _split(equation)
    return not set(kernel) <= set(inputs)


def _unused(equation: str) -> list[str]:
    return [letter for letter in string.ascii_letters if letter not in equation]


def _with_axis(equation: str) -> str:
    inputs, kernel, output = _split(equation)
    new = _unused(equation)[0]
    # The bias is added to the last axes, so the first is the one that changes nothing.
    return f"{inputs},{new}{kernel}->{new}{output}"


def _without_first_axis(call: Callable) -> Callable:
    @functools.wraps(call)
    def squeezed(*args, **kwargs):
        return keras.ops.squeeze(call(*args, **kwargs), 0)

    return squeezed


def _as_product(layer: keras.layers.EinsumDense, call: Callable) -> Callable:
    @functools.wraps(call)
    def multiplied(inputs, training=None):
        rank = len(inputs.shape)
        elided = "".join(_unused(layer.equation)[: rank - len(_split(layer.equation)[0]) + 3])
        given, letters, output = _split(layer.equation.replace("...", elided))
        if len(output) > _LARGEST_RANK:
            return call(inputs, training=training)
        rounds_input = getattr(layer, "input_quantizer", None)
        rounds_output = getattr(layer, "output_quantizer", None)
        x = rounds_input.call(inputs, training) if rounds_input else inputs
        x = keras.ops.multiply(_placed(x, given, output), _placed(layer.kernel, letters, output))
        x = x if layer.bias is None else x + layer.bias
        x = x if layer.activation is None else layer.activation(x)
        return rounds_output.call(x, training) if rounds_output else x

    return multiplied


def _placed(values, letters: str, output: str):
    """Values with their axes where an output has them, and axes of one where it has others."""
    order = sorted(range(len(letters)), key=lambda axis: output.index(letters[axis]))
    values = values if order == list(range(len(order))) else keras.ops.transpose(values, order)
    for axis, letter in enumerate(output):
        values = values if letter in letters else keras.ops.expand_dims(values, axis)
    return values
