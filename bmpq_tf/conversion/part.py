"""Parts of a model, and models of fixed sizes, with the same layers."""

import itertools
from collections.abc import Mapping, Sequence

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.model import keras_graph


def split(model: keras.Model, inputs) -> tuple[keras.Model, keras.Model]:
    """Returns the model from its inputs to some of its tensors, and from these to its outputs.

    Args:
        model: a functional or sequential model.
        inputs: a symbolic tensor of the model, a layer of it or a layer's name, which stand for
            what the layer gives, or a list of them.

    Raises:
        ValueError: something is not in the model, is called more than once, or does not suffice to
            compute the outputs.
    """
    listed = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    tensors = [tensor for one in listed for tensor in _tensors(model, one)]
    structure = keras_graph.structured_inputs(model, list(model.inputs))
    outputs = model.outputs if len(model.outputs) > 1 else model.outputs[0]
    try:
        before = keras.Model(structure, tensors)
        behind = keras.Model(tensors, outputs, name=model.name)
    except ValueError as error:
        raise ValueError(
            f"The outputs of model '{model.name}' need more than that. Received: "
            f"inputs={inputs!r}. Name all layers whose outputs are read behind that point, inputs "
            "of the model too."
        ) from error
    taken = {node.operation.name for node in keras_compat.nodes_in_order(behind)}
    return before, keras_compat.called_again(behind, _inputs_for(tensors, taken))


def _inputs_for(tensors: Sequence, taken: set[str]) -> list:
    """Inputs in place of tensors, named as what gives those, which Keras would number; as floats
    of 32 bits also where the model computes in 16.

    Args:
        tensors: of the model.
        taken: names of other operations.
    """
    made = []
    for tensor in tensors:
        name = keras_compat.producer(tensor)[0].name
        names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        free = next(one for one in names if one not in taken)
        taken = {*taken, free}
        dtype = "float32" if tensor.dtype in ("float16", "bfloat16") else tensor.dtype
        made.append(keras.Input(tensor.shape[1:], tensor.shape[0], dtype, name=free))
    return made


def _tensors(model: keras.Model, one) -> list:
    name = one.name if isinstance(one, keras.layers.Layer) else one
    nodes = list(keras_compat.nodes_in_order(model))
    if not isinstance(name, str):
        known = [*model.inputs, *(tensor for node in nodes for tensor in node.output_tensors)]
        if any(name is tensor for tensor in known):
            return [name]
        raise ValueError(
            f"That is no tensor of model '{model.name}'. Received: {one!r} in inputs=. Take it of "
            "the quantized model, such as model.get_layer('embedding').output."
        )
    calls = [node for node in nodes if node.operation.name == name]
    given = [tensor for tensor in model.inputs if tensor.name == name]
    if len(calls) > 1 or not (calls or given):
        raise ValueError(
            f"'{name}' is called {len(calls)} times in model '{model.name}'. Received: "
            f"inputs={name!r}. Give the tensor itself."
            if calls
            else f"No layer of model '{model.name}' is called '{name}'. Received: inputs={name!r}. "
            f"Layers: {', '.join(dict.fromkeys(node.operation.name for node in nodes))}."
        )
    return list(calls[0].output_tensors) if calls else given


def with_shapes(model: keras.Model, shapes) -> keras.Model:
    """Returns the model for inputs of fixed sizes.

    Args:
        model: a functional or sequential model.
        shapes: sizes without that of a batch: of its only input, a list of them for several, or a
            dict by the inputs' names.

    Raises:
        ValueError: they do not fit the inputs.
    """
    names = [tensor.name for tensor in model.inputs]
    if isinstance(shapes, Mapping):
        wanted = [shapes.get(tensor.name, tensor.shape[1:]) for tensor in model.inputs]
        known = set(shapes) <= set(names)
    else:
        is_one = all(isinstance(size, int) or size is None for size in shapes)
        wanted = [shapes] if is_one else list(shapes)
        known = len(wanted) == len(names)
    if not known or not all(map(_fits, wanted, model.inputs)):
        taken = {tensor.name: tuple(tensor.shape[1:]) for tensor in model.inputs}
        raise ValueError(
            f"Sizes in input_shapes do not fit model '{model.name}', which takes {taken}. "
            f"Received: input_shapes={shapes!r}. Give each input its sizes without the batch's."
        )
    inputs = [
        keras.Input(tuple(shape), tensor.shape[0], tensor.dtype, name=tensor.name)
        for shape, tensor in zip(wanted, model.inputs, strict=True)
    ]
    return keras_compat.called_again(model, inputs)


def _fits(shape: Sequence[int], tensor) -> bool:
    sizes = tensor.shape[1:]
    return len(shape) == len(sizes) and all(
        size is None or size == have for size, have in zip(sizes, shape, strict=True)
    )
