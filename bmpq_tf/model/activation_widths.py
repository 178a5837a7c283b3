"""At which width each layer meets its inputs: one walk along the graph that marks every tensor."""

from collections.abc import Callable
from typing import Any

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.layers import QuantIdentity, QuantReLU
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.base import QuantizedLayer
from bmpq_tf.layers.inheritance import keras_class
from bmpq_tf.model import graph_view, keras_graph

Layer = keras.layers.Layer
# What is computed from the model's inputs alone, before any weighted layer, is quantized at 8 bits
# whatever the rest is.
RAW, RAW_BITS = 0, 8


# Layers that give out values which they take in, up to zeros; dropout scales, but not in inference.
_PRESERVING = tuple(
    getattr(keras.layers, name)
    for name in (
        *(
            "Flatten",
            "Reshape",
            "Permute",
            "RepeatVector",
            "Identity",
            "ActivityRegularization",
            "Concatenate",
            "Dropout",
        ),
        *(
            f"{kind}{rank}D"
            for rank in (1, 2, 3)
            for kind in ("ZeroPadding", "Cropping", "UpSampling", "SpatialDropout")
        ),
        *(f"{kind}Pooling{rank}D" for rank in (1, 2, 3) for kind in ("Max", "GlobalMax")),
    )
)


_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def outside_time(operation):
    """What a wrapper over time does to its values is what the layer inside does."""
    return operation.layer if isinstance(operation, keras.layers.TimeDistributed) else operation


def _projections(operation) -> list[Layer]:
    """The layers inside attention that read what it reads."""
    return (
        keras_compat.attention_projections(operation) if isinstance(operation, _ATTENTION) else []
    )


def rounded_output(operation) -> int | None:
    """Returns the width that a layer of a quantized model rounds its output to, or `None`."""
    if isinstance(operation, (QuantReLU, QuantIdentity)):
        return operation.activation_quantizer.bits
    quantizer = operation.output_quantizer if isinstance(operation, QuantizedLayer) else None
    return quantizer.bits if quantizer else None


def activation_widths(model: keras.Model) -> dict[int, int]:
    """Returns the width at which each quantized layer's kernel meets its inputs, by the layer's
    `id`; 32 is float.

    A shared layer counts the widest of its uses. In a model whose graph cannot be followed
    (a class of the user's), only a layer that rounds its input itself is known to read less than 32
    bits.
    """
    graph = graph_view.seen(model)
    read = widths_read(graph, rounded_output) if graph is not None else {}
    widths = {}
    for layer in keras_graph.quantized_layers(model):
        marks = read.get(id(layer), {FLOAT_BITS})
        own = layer.input_quantizer
        # An embedding reads integers, which have no mark.
        widths[id(layer)] = (
            own.bits if own else FLOAT_BITS if RAW in marks else max(marks, default=FLOAT_BITS)
        )
    return widths


def widths_read(model: keras.Model, emitted: Callable[[Any], int | None]) -> dict[int, set[int]]:
    """Returns at which widths each operation's inputs come, over all of its uses, by the
    operation's `id`.

    Args:
        model: a functional or sequential model; nested models are walked through.
        emitted: the width that an operation rounds its output to, or `None`.

    Returns:
        Sets of widths: `FLOAT_BITS` for what is not rounded, `RAW` for the model's inputs. Inputs
            of integers do not count.
    """
    read: dict[int, set[int]] = {}
    _walk(model, [RAW] * len(model.inputs), emitted, read)
    return read


def _walk(model, marks_of_inputs: list[int], emitted, read: dict[int, set[int]]) -> list[int]:
    """Marks the tensors of a model with their widths; returns the marks of its outputs."""
    marks = {id(tensor): mark for tensor, mark in zip(model.inputs, marks_of_inputs, strict=True)}
    for node in keras_compat.nodes_in_order(model):
        operation = outside_time(node.operation)
        if keras_graph.is_graph(operation):
            outputs = _walk(
                operation,
                # A constant among them has no mark: floats that nothing rounds.
                [
                    marks.get(id(tensor), FLOAT_BITS)
                    for tensor in keras_graph.inputs_of_call(node, operation)
                ],
                emitted,
                read,
            )
        else:
            given = [marks[id(tensor)] for tensor in node.input_tensors]
            floats = [
                mark
                for mark, tensor in zip(given, node.input_tensors, strict=True)
                if "float" in tensor.dtype
            ]
            for reader in (operation, *_projections(operation)):
                read.setdefault(id(reader), set()).update(floats)
            outputs = [_mark_of_output(operation, set(given), emitted(operation))] * len(
                node.output_tensors
            )
        marks.update(
            {id(tensor): mark for tensor, mark in zip(node.output_tensors, outputs, strict=True)}
        )
    return [marks[id(tensor)] for tensor in model.outputs]


def _mark_of_output(operation, given: set[int], emitted: int | None) -> int:
    if emitted:
        return emitted
    if given == {RAW} and not keras_graph.has_kernels(operation):
        return RAW
    preserving = preserves_values(operation) and given and not given & {RAW, FLOAT_BITS}
    return max(given) if preserving else FLOAT_BITS


def preserves_values(operation) -> bool:
    """Returns whether an operation's outputs are all among its inputs, as a reshape's are."""
    computes_as = keras_class(operation)
    if computes_as is keras.layers.Activation:
        return operation.activation is keras.activations.linear
    return (
        computes_as in _PRESERVING and getattr(operation, "interpolation", "nearest") == "nearest"
    )


def activation_quantizers(model: keras.Model) -> list[ActivationQuantizer]:
    """Returns a model's activation quantizers, in the model's order.

    A copy's have the same order.
    """
    return [
        layer
        for layer in keras_compat.flattened_layers(model)
        if isinstance(layer, ActivationQuantizer)
    ]
