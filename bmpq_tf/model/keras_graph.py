"""Questions about a Keras model's graph.

Which layers it has, and which with kernels come first and last.
"""

from typing import Any

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.layers.base import QuantizedLayer
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer

Layer = keras.layers.Layer


def sublayers(layer: Layer) -> list[Layer]:
    """Returns every layer below `layer`, models too, however deep, each once, a layer before what
    is inside it.
    """
    return keras_compat.flattened_layers(layer)[1:]


def quantized_layers(model: Layer) -> list[QuantizedLayer]:
    """Returns the quantized layers of a model, however deep, each once, in the model's order."""
    parts = keras_compat.flattened_layers(model)
    return [layer for layer in parts if isinstance(layer, QuantizedLayer)]


def kernel_variables(layer: Layer) -> list[keras.Variable]:
    """Returns the layer's own weights with two axes or more.

    What counts as a kernel where no registry says.

    What a layer inside holds too (as under `SpectralNormalization`) is that layer's.
    """
    if isinstance(layer, (KernelQuantizer, QuantizedLayer)):
        return []
    inside = {
        id(variable)
        for part in sublayers(layer)
        for variable in keras_compat.own_trainable_variables(part)
    }
    return [
        variable
        for variable in keras_compat.own_trainable_variables(layer)
        if len(variable.shape) >= 2 and id(variable) not in inside
    ]


def first_and_last(model: keras.Model) -> tuple[list[Layer], list[Layer]]:
    """Finds the first and the last layers with kernels of a functional or sequential model.

    A layer is first if some path reaches it from an input without passing another one with kernels,
    and last if some path leads from it to an output likewise. A branched model can have several of
    each; nested models are walked through.
    """
    first: dict[int, Layer] = {}
    last: dict[int, Layer] = {}
    _clean_forward(model, [True] * len(model.inputs), first)
    _clean_backward(model, [True] * len(model.outputs), last)
    return list(first.values()), list(last.values())


def _clean_forward(model, clean_inputs: list[bool], found: dict[int, Layer]) -> list[bool]:
    """Marks the tensors that an input reaches without meeting a layer with kernels.

    Returns the marks of the outputs.
    """
    clean = {id(tensor): mark for tensor, mark in zip(model.inputs, clean_inputs, strict=True)}
    for node in keras_compat.nodes_in_order(model):
        if (inner := graph_inside(node.operation)) is not None:
            outputs = _clean_forward(
                inner,
                [clean.get(id(tensor), False) for tensor in inputs_of_call(node, inner)],
                found,
            )
        elif has_kernels(node.operation):
            if any(clean.get(id(tensor), False) for tensor in _computed_with(node)):
                found[id(node.operation)] = node.operation
            outputs = [False] * len(node.output_tensors)
        else:
            outputs = [any(clean.get(id(tensor), False) for tensor in _computed_with(node))] * len(
                node.output_tensors
            )
        clean.update(
            {id(tensor): mark for tensor, mark in zip(node.output_tensors, outputs, strict=True)}
        )
    return [clean.get(id(tensor), False) for tensor in model.outputs]


def _clean_backward(model, clean_outputs: list[bool], found: dict[int, Layer]) -> list[bool]:
    """Marks the tensors that reach an output without meeting a layer with kernels.

    Returns the marks of the inputs.
    """
    clean: dict[int, bool] = {}
    for tensor, mark in zip(model.outputs, clean_outputs, strict=True):
        clean[id(tensor)] = clean.get(id(tensor), False) or mark
    for node in reversed(list(keras_compat.nodes_in_order(model))):
        marks = [clean.get(id(tensor), False) for tensor in node.output_tensors]
        tensors = node.input_tensors
        if (inner := graph_inside(node.operation)) is not None:
            tensors = inputs_of_call(node, inner)
            inputs = _clean_backward(inner, marks, found)
        elif any(marks) and has_kernels(node.operation):
            found[id(node.operation)] = node.operation
            continue
        else:
            inputs = [any(marks)] * len(tensors)
        for tensor, mark in zip(tensors, inputs, strict=True):
            clean[id(tensor)] = clean.get(id(tensor), False) or mark
    return [clean.get(id(tensor), False) for tensor in model.inputs]


def _computed_with(node) -> list:
    """The tensors that a call computes with; masks only say which values count."""
    masks = {
        id(tensor)
        for name, value in node.arguments.kwargs.items()
        if name.endswith("mask")
        for tensor in keras.tree.flatten(value)
    }
    return [
        tensor
        for tensor in node.input_tensors
        if id(tensor) not in masks and tensor.dtype != "bool"
    ]


def inputs_of_call(node, model: keras.Model) -> list:
    """Returns the tensors that a model was called with, in the order of its own inputs.

    The call's masks are none.
    """
    return flat_inputs(
        model, node.arguments.args[0] if node.arguments.args else node.arguments.kwargs["inputs"]
    )


def structured_inputs(model: keras.Model, flat: list):
    """Returns a flat list of inputs as the structure that the model takes.

    One tensor, a list or a dict.
    """
    return keras.tree.pack_sequence_as(keras_compat.inputs_structure(model), flat)


def flat_inputs(model: keras.Model, inputs) -> list:
    """Returns inputs in the model's order, flat, as Keras takes them.

    A dict goes by name, unless the model takes a dict itself.
    """
    names = [tensor.name for tensor in model.inputs]
    if (
        isinstance(inputs, dict)
        and not isinstance(keras_compat.inputs_structure(model), dict)
        and set(names) <= set(inputs)
    ):
        return [inputs[name] for name in names]
    return keras.tree.flatten(inputs)


def has_kernels(operation) -> bool:
    """Whether an operation, or a layer inside it, has weights that count as kernels, quantized or
    not.
    """
    if not isinstance(operation, Layer):
        return False
    return any(
        isinstance(part, QuantizedLayer) or kernel_variables(part)
        for part in keras_compat.flattened_layers(operation)
    )


def is_graph(operation) -> bool:
    """Whether this is a functional or sequential model, whose layers can be replaced by cloning."""
    return isinstance(operation, keras.Model) and keras_compat.has_graph(operation)


def graph_inside(operation):
    """Returns the model that an operation is, or is a wrapper of (`TimeDistributed`).

    `None` where it is neither.
    """
    inner = operation.layer if isinstance(operation, keras.layers.TimeDistributed) else operation
    return inner if is_graph(inner) else None


def output_names(model: keras.Model) -> list[str]:
    """Returns the keys of a model's outputs where they are a dict, and else `output_0` and so on,
    flat.
    """
    # A sequential model has none before it is called.
    structure: Any = getattr(model, "output", None)
    if isinstance(structure, dict) and len(structure) == len(model.outputs):
        return [str(key) for key in keras.tree.flatten({key: key for key in structure})]
    return [f"output_{number}" for number in range(len(model.outputs))]
