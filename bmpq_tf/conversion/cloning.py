"""Copies of functional and sequential models, layer by layer, with their weights.

Each layer may get a twin of another class.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.conversion import model_attributes
from bmpq_tf.conversion.layer_configs import (
    STATE,
    functions_by_name,
    known_parts,
    naming,
    own_functions,
    with_functions,
)
from bmpq_tf.layers.base import QuantizedLayer
from bmpq_tf.layers.inheritance import config_of_parent
from bmpq_tf.layers.registry import entry_for, quantized_entry_for
from bmpq_tf.layers.serialization import is_of_user
from bmpq_tf.model import keras_graph

Layer = keras.layers.Layer
# What a weight of a layer, the second, becomes in the copy's, the third.
Carried = Callable[[Layer, keras.Variable, keras.Variable], Any]


def clone(
    model: keras.Model,
    twin: Callable[[Layer, dict], Layer | None],
    on_grid: bool = True,
    in_variable_dtype: bool = False,
    inside: Callable[[Layer, Layer], None] | None = None,
    carried: Carried | None = None,
) -> keras.Model:
    """Clones a model and copies the weights.

    `twin` makes a layer's copy from its config, or returns `None` for a copy of its class.

    `inside` is given each layer of the user's own classes with its copy, which has its weights.

    Where a quantized layer's copy is a float one, it has the kernel as it reads, or, not `on_grid`,
    the latent one. Copies compute in the precision of the originals, or `in_variable_dtype`.

    `carried` gives what a weight of a layer becomes in the copy's, where their shapes may differ.
    """
    pairs: list[tuple[Layer, Layer]] = []

    def rebuilt(layer: Layer) -> Layer:
        if keras_graph.is_graph(layer):
            return keras.models.clone_model(layer, clone_function=rebuilt, recursive=True)
        told: dict[str, Any] = _variable_dtype(layer) if in_variable_dtype else {}
        entry = entry_for(layer) or quantized_entry_for(layer)
        for key, attribute in (entry.held if entry else {}).items():
            held = getattr(layer, attribute)
            serialize = keras.saving.serialize_keras_object
            told[key] = (
                [serialize(rebuilt(part)) for part in held]
                if isinstance(held, (list, tuple))
                else serialize(rebuilt(held))
            )
        if type(layer) is keras.layers.Lambda:
            # A function that was read from a config has lost what it refers to.
            dtype = layer.variable_dtype if in_variable_dtype else layer.dtype_policy
            said = {"name": layer.name, "trainable": layer.trainable, "dtype": dtype}
            return keras.layers.Lambda(
                layer.function,
                keras_compat.lambda_output_shape(layer),
                layer.mask,
                layer.arguments,
                **said,
            )
        with naming(layer):
            made = twin(layer, {**with_functions(layer, config_of_parent(layer)), **told})
            config = {} if made else {**with_functions(layer, layer.get_config()), **told}
            return made or type(layer).from_config(config)

    def replace(layer: Layer) -> Layer:
        made = rebuilt(layer)
        # A slice or a sum of tensors is an operation of the model, and no layer.
        if isinstance(layer, Layer):
            pairs.append((layer, made))
        return made

    with _uncompiled(model), keras.saving.custom_object_scope(functions_by_name(model)):
        copy = keras.models.clone_model(model, _inputs_like(model), replace, recursive=True)
    _complete(model, copy, pairs, on_grid, carried or (lambda layer, value, variable: value))
    for nested, its_copy in zip(_models(model), _models(copy), strict=True):
        model_attributes.carry(nested, its_copy)
        if not in_variable_dtype:
            # By it `compile` knows whether gradients need a loss scale.
            its_copy.dtype_policy = nested.dtype_policy
    if inside is not None:
        for layer, made in pairs:
            if is_of_user(made):
                inside(layer, made)
    return copy


def _variable_dtype(layer: Layer) -> dict[str, str]:
    # A slice of a tensor is no layer, and a pipeline takes no dtype.
    if not isinstance(layer, Layer) or isinstance(layer, keras.layers.Pipeline):
        return {}
    mixed = layer.compute_dtype != layer.variable_dtype
    return {"dtype": layer.variable_dtype} if mixed else {}


def _inputs_like(model: keras.Model) -> Any:
    """Inputs as the model's, where Keras's copies would forget that one may be missing, or is
    sparse or ragged; `None` where none is.
    """

    def layer_of(tensor):
        return keras_compat.producer(tensor)[0]

    def alike(tensor):
        said = {name: getattr(layer_of(tensor), name) for name in ("sparse", "ragged", "optional")}
        return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name, **said)

    inputs = [layer_of(tensor) for tensor in model.inputs]
    if not any(one.sparse or one.ragged or one.optional for one in inputs):
        return None
    return keras.tree.map_structure(alike, keras_compat.inputs_structure(model))


def _complete(
    model: keras.Model,
    copy: keras.Model,
    pairs: list[tuple[Layer, Layer]],
    on_grid: bool,
    carried: Carried,
) -> None:
    """Gives copies what their configs do not tell: weights, flags, functions, shared variables."""
    for nested, its_copy in zip(_models(model), _models(copy), strict=True):
        check_class(nested, its_copy, ("call",))
        # As it reads, without what setting it does to the layers inside: each of them is told its
        # own.
        keras_compat.copy_own_trainable(nested, its_copy)
    parts = [
        pair for layer, made in pairs for pair in zip(_parts(layer), _parts(made), strict=True)
    ]
    for part, made in parts:
        keras_compat.copy_remat_mode(part, made)
        _copy_weights(part, made, on_grid, carried)
    # Layers inside layers were told of functions by names, which Keras may have functions of too.
    for part, made in [
        pair for layers in pairs for pair in zip(*map(known_parts, layers), strict=True)
    ]:
        # The function of a Lambda may be one that no config takes.
        is_lambda = type(part) is keras.layers.Lambda
        config = dict.fromkeys(["function"]) if is_lambda else part.get_config()
        for name, function in own_functions(part, config).items():
            # Recurrent layers only pass on what their cells hold.
            if name in vars(made):
                setattr(made, name, function)
    _tie(parts)


def _models(layer: Layer) -> list[keras.Model]:
    """The models in a layer, itself first, as often as they are held: a copy holds one for each.

    What a functional model has as an attribute, beside its graph, no copy has.
    """
    itself: list[keras.Model] = [layer] if isinstance(layer, keras.Model) else []
    inside = layer.layers if keras_graph.is_graph(layer) else keras_compat.layers_inside(layer)
    return itself + [model for part in inside for model in _models(part)]


def check_class(model: keras.Model, copy: keras.Model, methods: Iterable[str]) -> None:
    """Raises TypeError if Keras made the copy of a plainer class that lost one of these methods."""
    lost = [name for name in methods if getattr(type(model), name) is not getattr(type(copy), name)]
    if lost and type(copy) is not type(model):
        raise TypeError(
            f"Keras makes copies of model '{model.name}' as {type(copy).__name__}, which would "
            f"lose the {', '.join(lost)} of its class. "
            f"Received: a {type(model).__name__}. Give that class the constructor (self, *args, "
            "**kwargs) of a functional model and make it "
            "with (inputs, outputs), or build it from the quantized layers, such as "
            "bmpq_tf.layers.QuantConv2D."
        )


@contextlib.contextmanager
def _uncompiled(model: keras.Model) -> Iterator[None]:
    """Keeps Keras from compiling the copy, which needs every loss and metric to be registered, and
    which nobody asked for.
    """
    parts = [part for part in _models(model) if part.compiled]
    for part in parts:
        part.compiled = False
    try:
        yield
    finally:
        for part in parts:
            part.compiled = True


def _parts(layer: Layer) -> list[Layer]:
    """A layer and those inside it, without the quantizers, in an order that the twin has too."""
    return [part for part in keras_compat.flattened_layers(layer) if not isinstance(part, STATE)]


def _own_variables(layer: Layer) -> list[keras.Variable]:
    """Sorted by attribute, which a layer and its twin share but for a leading underscore.

    Those in lists come last, in order.
    """
    attributes = {
        id(value): name.lstrip("_")
        for name, value in vars(layer).items()
        if isinstance(value, keras.Variable)
    }
    return sorted(
        keras_compat.own_variables(layer), key=lambda variable: attributes.get(id(variable), "~")
    )


def _copy_weights(source: Layer, target: Layer, on_grid: bool, carried: Carried) -> None:
    """Copies a layer's own weights, without those of the layers inside."""
    values, variables = _own_variables(source), _own_variables(target)
    if len(values) != len(variables):
        raise ValueError(
            f"Layer '{source.name}' ({type(source).__name__}) cannot be copied: a layer made from "
            f"its config has {len(variables)} weights. "
            f"Received: one with {len(values)} of its own. Weights that were added or replaced by "
            "hand are not in a config."
        )
    for value, variable in zip(values, variables, strict=True):
        variable.assign(carried(source, value, variable))
    if hasattr(source, "adapt"):
        _copy_adapted(source, target)
    # A config does not tell whether a layer inside was frozen.
    if target.trainable != source.trainable:
        target.trainable = source.trainable
    if type(source) is type(target):
        for mine, theirs in zip(_quantizers(source), _quantizers(target), strict=True):
            for value, variable in zip(mine.weights, theirs.weights, strict=True):
                variable.assign(carried(source, value, variable))
        return
    if isinstance(source, QuantizedLayer):
        # The variable behind a kernel is the latent float weight, which has means that are not
        # rounded where kernels are normalised.
        for (kernel, quantizer), name in zip(
            source.kernels(), source.kernel_channel_axes, strict=True
        ):
            getattr(target, name).assign(
                (quantizer.call if on_grid else quantizer.quantized_from)(kernel.value)
            )
    if isinstance(target, QuantizedLayer):
        for kernel, quantizer in target.kernels():
            quantizer.initialise_scale(kernel)


def _copy_adapted(source: Layer, target: Layer) -> None:
    """Copies what a preprocessing layer learned from data, as Keras's files do.

    Some of it is no variable, or computed from them on loading.
    """
    store: dict[str, np.ndarray] = {}
    source.save_own_variables(store)
    target.load_own_variables(store)
    if hasattr(source, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)


def _quantizers(layer: Layer) -> list[Layer]:
    return [part for part in keras_compat.layers_inside(layer) if isinstance(part, STATE)]


def _tie(parts: list[tuple[Layer, Layer]]) -> None:
    """Gives copies of layers that shared a variable one variable again.

    Cloned one by one, each has its own.
    """
    copies: dict[int, keras.Variable] = {}
    for part, made in parts:
        for source, copy in zip(_own_variables(part), _own_variables(made), strict=True):
            kept = copies.setdefault(id(source), copy)
            for name in [
                name for name, value in vars(made).items() if value is copy and kept is not copy
            ]:
                keras_compat.replace_attribute(made, name, kept)
