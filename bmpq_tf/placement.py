"""Where activations are quantized: at each ReLU, and where a quantized layer would read something that is not rounded.

One walk along the graph answers both what to place in a float model and at which width each layer of a quantized model reads.
"""

from collections.abc import Callable
from typing import Any

import keras

from bmpq_tf import graph
from bmpq_tf.budget import FLOAT_BITS
from bmpq_tf.layers import QuantIdentity, QuantizedLayer, QuantReLU
from bmpq_tf.layers.quantized_layer import RELU_LIMITS, is_cell

Layer = keras.layers.Layer
# What is computed from the model's inputs alone, before any weighted layer, is quantized at 8 bits whatever the rest is.
RAW, RAW_BITS = 0, 8
# Layers that give out values which they take in, up to zeros; dropout scales, but not in inference.
_PRESERVING = tuple(
    getattr(keras.layers, name)
    for name in (
        *("Flatten", "Reshape", "Permute", "RepeatVector", "Identity", "ActivityRegularization", "Concatenate", "Dropout"),
        *(f"{kind}{rank}D" for rank in (1, 2, 3) for kind in ("ZeroPadding", "Cropping", "UpSampling", "SpatialDropout")),
        *(f"{kind}Pooling{rank}D" for rank in (1, 2, 3) for kind in ("Max", "GlobalMax")),
    )
)
_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


class Plan:
    """Which layers of a float model get which activation quantizers.

    Args:
        model: a built functional or sequential model.
        bits: the width of the activations; `None` places nothing.
        chosen: whether a layer is to be quantized.
        weighted: whether a layer that is chosen will have quantized kernels.
    """

    def __init__(self, model: keras.Model, bits: int | None, chosen: Callable[[Layer], bool], weighted: Callable[[Layer], bool]):
        self._bits, self._chosen = bits, chosen
        self._float_ends = set() if bits is None else _producers_of_outputs(model)

        def emitted(operation) -> int | None:
            ends_in_relu = is_relu(operation) or (weighted(operation) and getattr(operation, "activation", None) in RELU_LIMITS)
            return bits if ends_in_relu and chosen(operation) and id(operation) not in self._float_ends else None

        self._read = {} if bits is None else widths_read(model, emitted)

    def relu(self, layer: Layer) -> QuantReLU | None:
        """Returns the quantized twin of a ReLU; `None` for all else, and for a ReLU that stays float."""
        if self._bits is None or not is_relu(layer) or not self._chosen(layer) or id(layer) in self._float_ends:
            return None
        config = layer.get_config()
        if isinstance(layer, keras.layers.Activation):
            config = {**{key: config[key] for key in ("name", "trainable", "dtype")}, "max_value": RELU_LIMITS[layer.activation]}
        return QuantReLU.from_config({**config, "bits": self._bits})

    def bits(self, layer: Layer) -> dict[str, int | None]:
        """Returns the fields of a weighted layer's `QuantizerConfig` that say what to do with its activations.

        A layer that the model's graph does not show, such as one inside attention, rounds its input itself. A recurrent cell reads
        its own last output besides, which nothing rounds, so what it reads stays float.
        """
        if self._bits is None or is_cell(layer) or isinstance(layer, keras.layers.Embedding):
            return {"activation_bits": None, "input_bits": None}
        output = None if id(layer) in self._float_ends else self._bits
        read = self._read.get(id(layer), {FLOAT_BITS})
        if not read & {RAW, FLOAT_BITS}:
            return {"activation_bits": output, "input_bits": None}
        return {"activation_bits": output, "input_bits": RAW_BITS if read == {RAW} else self._bits}


def _shown(operation):
    """What a wrapper over time does to its values is what the layer inside does."""
    return operation.layer if isinstance(operation, keras.layers.TimeDistributed) else operation


def _projections(operation) -> list[Layer]:
    """The layers inside attention that read what it reads."""
    names = ("_query_dense", "_key_dense", "_value_dense") if isinstance(operation, _ATTENTION) else ()
    return [getattr(operation, name) for name in names]


def is_relu(operation) -> bool:
    """Whether this is a layer that is nothing but a ReLU, with or without a maximum."""
    if type(operation) is keras.layers.ReLU:
        return not operation.negative_slope
    return type(operation) is keras.layers.Activation and operation.activation in RELU_LIMITS


def rounded_output(operation) -> int | None:
    """Returns the width that a layer of a quantized model rounds its output to, or `None`."""
    if isinstance(operation, (QuantReLU, QuantIdentity)):
        return operation.activation_quantizer.bits
    quantizer = operation.output_quantizer if isinstance(operation, QuantizedLayer) else None
    return quantizer.bits if quantizer else None


def activation_widths(model: keras.Model) -> dict[int, int]:
    """Returns the width at which each quantized layer's kernel meets its inputs, by the layer's `id`; 32 is float.

    A shared layer counts the widest of its uses. In a model whose graph cannot be seen (subclassed), only a layer that rounds its
    input itself is known to read less than 32 bits.
    """
    read = widths_read(model, rounded_output) if graph.is_graph(model) else {}
    widths = {}
    for layer in graph.quantized_layers(model):
        marks = read.get(id(layer), {FLOAT_BITS})
        own = layer.input_quantizer
        # An embedding reads integers, which have no mark.
        widths[id(layer)] = own.bits if own else FLOAT_BITS if RAW in marks else max(marks, default=FLOAT_BITS)
    return widths


def widths_read(model: keras.Model, emitted: Callable[[Any], int | None]) -> dict[int, set[int]]:
    """Returns at which widths each operation's inputs come, over all of its uses, by the operation's `id`.

    Args:
        model: a functional or sequential model; nested models are walked through.
        emitted: the width that an operation rounds its output to, or `None`.

    Returns:
        Sets of widths: `FLOAT_BITS` for what is not rounded, `RAW` for the model's inputs. Inputs of integers do not count.
    """
    read: dict[int, set[int]] = {}
    _walk(model, [RAW] * len(graph.inputs_of(model)), emitted, read)
    return read


def _walk(model, marks_of_inputs: list[int], emitted, read: dict[int, set[int]]) -> list[int]:
    """Marks the tensors of a model with their widths; returns the marks of its outputs."""
    marks = {id(tensor): mark for tensor, mark in zip(graph.inputs_of(model), marks_of_inputs, strict=True)}
    for node in graph.nodes_in_order(model):
        operation = _shown(node.operation)
        if graph.is_graph(operation):
            outputs = _walk(operation, [marks[id(tensor)] for tensor in graph.inputs_of_call(node, operation)], emitted, read)
        else:
            given = [marks[id(tensor)] for tensor in node.input_tensors]
            floats = [mark for mark, tensor in zip(given, node.input_tensors, strict=True) if "float" in tensor.dtype]
            for reader in (operation, *_projections(operation)):
                read.setdefault(id(reader), set()).update(floats)
            outputs = [_mark_of_output(operation, set(given), emitted(operation))] * len(node.output_tensors)
        marks.update({id(tensor): mark for tensor, mark in zip(node.output_tensors, outputs, strict=True)})
    return [marks[id(tensor)] for tensor in graph.outputs_of(model)]


def _mark_of_output(operation, given: set[int], emitted: int | None) -> int:
    if emitted:
        return emitted
    if given == {RAW} and not graph.has_kernels(operation):
        return RAW
    preserving = _preserves_values(operation) and given and not given & {RAW, FLOAT_BITS}
    return max(given) if preserving else FLOAT_BITS


def _preserves_values(operation) -> bool:
    if type(operation) is keras.layers.Activation:
        return operation.activation is keras.activations.linear
    return type(operation) in _PRESERVING and getattr(operation, "interpolation", "nearest") == "nearest"


def _producers_of_outputs(model: keras.Model) -> set[int]:
    """Returns the `id`s of the operations whose values are the model's outputs, looking into nested models and past reshaping."""
    found: set[int] = set()
    # What stands outside for the inputs of the nested models that were entered.
    outside: dict[int, list] = {}
    pending, seen = list(graph.outputs_of(model)), set()
    while pending:
        tensor = pending.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        pending.extend(outside.get(id(tensor), ()))
        operation, node_index, tensor_index = tensor._keras_history
        node, shown = operation._inbound_nodes[node_index], _shown(operation)
        if graph.is_graph(shown):
            for inner, outer in zip(graph.inputs_of(shown), graph.inputs_of_call(node, shown), strict=True):
                outside.setdefault(id(inner), []).append(outer)
            pending.append(graph.outputs_of(shown)[tensor_index])
        elif _preserves_values(shown):
            pending.extend(node.input_tensors)
        else:
            found.add(id(shown))
    return found
