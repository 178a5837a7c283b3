"""Copies of functional and sequential models, layer by layer, with their weights.

Each layer may get a twin of another class.
"""

import contextlib
import inspect
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.base import QuantizedLayer
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer
from bmpq_tf.layers.registry import entry_for, quantized_entry_for
from bmpq_tf.layers.serialization import is_ours
from bmpq_tf.model import keras_graph

Layer = keras.layers.Layer
_STATE = (KernelQuantizer, ActivationQuantizer)


def clone(
    model: keras.Model,
    twin: Callable[[Layer, dict], Layer | None],
    on_grid: bool = True,
    in_variable_dtype: bool = False,
) -> keras.Model:
    """Clones a model and copies the weights.

    `twin` makes a layer's copy from its config, or returns `None` for a copy of its class.

    Where a quantized layer's copy is a float one, it has the kernel as it reads, or, not `on_grid`,
    the latent one. Copies compute in the precision of the originals, or `in_variable_dtype`.
    """
    pairs: list[tuple[Layer, Layer]] = []

    def rebuilt(layer: Layer) -> Layer:
        if keras_graph.is_graph(layer):
            return keras.models.clone_model(layer, clone_function=rebuilt, recursive=True)
        config = layer.get_config()
        if _is_known(layer):
            config |= _own_functions(layer)
        if (
            in_variable_dtype
            and isinstance(layer, Layer)
            and layer.compute_dtype != layer.variable_dtype
        ):
            config["dtype"] = layer.variable_dtype
        entry = entry_for(layer) or quantized_entry_for(layer)
        for key, attribute in (entry.held if entry else {}).items():
            held = getattr(layer, attribute)
            serialize = keras.saving.serialize_keras_object
            config[key] = (
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
        return twin(layer, config) or type(layer).from_config(config)

    def replace(layer: Layer) -> Layer:
        made = rebuilt(layer)
        # A slice or a sum of tensors is an operation of the model, and no layer.
        if isinstance(layer, Layer):
            pairs.append((layer, made))
        return made

    with _uncompiled(model), keras.saving.custom_object_scope(_by_name(model)):
        copy = keras.models.clone_model(model, clone_function=replace, recursive=True)
    _complete(model, copy, pairs, on_grid)
    return copy


def _complete(
    model: keras.Model, copy: keras.Model, pairs: list[tuple[Layer, Layer]], on_grid: bool
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
        _copy_weights(part, made, on_grid)
    # Layers inside layers were told of functions by names, which Keras may have functions of too.
    for part, made in [
        pair for layers in pairs for pair in zip(*map(_known_parts, layers), strict=True)
    ]:
        for name, function in _own_functions(part).items():
            # Recurrent layers only pass on what their cells hold.
            if name in vars(made):
                setattr(made, name, function)
    _tie(parts)


def _models(layer: Layer) -> list[keras.Model]:
    """The models in a layer, itself first, as often as they are held: a copy holds one for each."""
    itself: list[keras.Model] = [layer] if isinstance(layer, keras.Model) else []
    return itself + [model for part in keras_compat.layers_inside(layer) for model in _models(part)]


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


def _is_known(layer) -> bool:
    return keras_compat.is_from_keras(type(layer)) or is_ours(type(layer))


def _known_parts(layer: Layer) -> list[Layer]:
    """A layer and those inside it, as far as Keras's classes reach.

    One of the user's makes its parts, and functions for them, itself.
    """
    inside = (
        [part for part in keras_compat.layers_inside(layer) if not isinstance(part, _STATE)]
        if _is_known(layer)
        else []
    )
    return [
        *([layer] if _is_known(layer) else []),
        *(part for inner in inside for part in _known_parts(inner)),
    ]


def _is_own(function) -> bool:
    return inspect.isfunction(function) and not keras_compat.is_from_keras(function)


def _own_functions(layer: Layer) -> dict[str, Callable]:
    """Functions that are not Keras's, such as activations of the user's, under the keys of a
    layer's config, which tells their names only.
    """
    held: dict[str, Any] = {key: getattr(layer, key, None) for key in layer.get_config()}
    return {key: function for key, function in held.items() if _is_own(function)}


def _by_name(model: keras.Model) -> dict[str, Callable]:
    """Every function that a layer of a model holds, by its name, so that configs which tell only
    that can be read.
    """
    found: dict[bool, dict[str, Callable]] = {True: {}, False: {}}
    for layer in keras_graph.sublayers(model):
        # Keras wraps methods such as build for each layer, and has no names for lambdas.
        held = [
            value
            for name, value in vars(layer).items()
            if _is_own(value) and not hasattr(type(layer), name)
        ]
        named = found[_is_known(layer)]
        for function in [function for function in held if function.__name__ != "<lambda>"]:
            # Copies of Keras's layers get their functions themselves; others only have the name to
            # go by.
            if named.setdefault(function.__name__, function) is not function and not _is_known(
                layer
            ):
                raise ValueError(
                    "Two functions of layers of your own have one name, so a copy of model "
                    f"'{model.name}' could not tell them apart. "
                    f"Received: {function.__name__!r}, also in layer '{layer.name}'. Give each a "
                    "__name__ of its own."
                )
    return found[True] | found[False]


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
    return [part for part in [layer, *keras_graph.sublayers(layer)] if not isinstance(part, _STATE)]


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


def _copy_weights(source: Layer, target: Layer, on_grid: bool) -> None:
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
        variable.assign(value)
    if hasattr(source, "adapt"):
        _copy_adapted(source, target)
    # A config does not tell whether a layer inside was frozen.
    if target.trainable != source.trainable:
        target.trainable = source.trainable
    if type(source) is type(target):
        for mine, theirs in zip(_quantizers(source), _quantizers(target), strict=True):
            for value, variable in zip(mine.weights, theirs.weights, strict=True):
                variable.assign(value)
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
    return [part for part in keras_compat.layers_inside(layer) if isinstance(part, _STATE)]


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
