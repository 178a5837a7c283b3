"""Layers that become their quantized twins, and float ones again, without a new object.

Wherever a model refers to a layer (attributes, lists, dicts, closures, several places) it goes on
doing so, and weights stay the same variables. `quantize_model` does this to subclassed models and
to what stands inside layers of the user's own classes.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.activations import QuantIdentity, QuantReLU
from bmpq_tf.layers.base import QuantizedLayer
from bmpq_tf.layers.composite import CompositeConfig, QuantizedComposite
from bmpq_tf.layers.normalization import FusedBatchNormalization
from bmpq_tf.layers.registry import entry_for, quantized_entry_for
from bmpq_tf.layers.serialization import is_of_user, serializable

Layer = keras.layers.Layer
# The class that a layer had as a float one.
_BEFORE = "_bmpq_float_class"
_PLAIN: dict[type, type] = {
    QuantReLU: keras.layers.ReLU,
    QuantIdentity: keras.layers.Identity,
    FusedBatchNormalization: keras.layers.BatchNormalization,
}


def quantize_in_place(layer: Layer, quantizer) -> None:
    """Makes a layer that the registry knows its quantized twin, and those inside a composite.

    Args:
        layer: a float layer, built or not.
        quantizer: as its twin's constructor takes it.
    """
    entry = entry_for(layer)
    assert entry is not None
    before = type(layer)
    if entry.is_composite:
        config = CompositeConfig.of(quantizer)
        for part in list(keras_compat.layers_inside(layer)):
            inner = config.of_sublayer(part.name) if entry_for(part) else None
            if inner is not None:
                quantize_in_place(part, inner)
        keras_compat.change_class(layer, entry.quantized_class)
        object.__setattr__(layer, "quantizer", config)
        object.__setattr__(layer, _BEFORE, before)
        return
    keras_compat.change_class(layer, entry.quantized_class)
    assert isinstance(layer, QuantizedLayer)
    object.__setattr__(layer, _BEFORE, before)
    for attribute in entry.kernel_channel_axes:
        # Some classes hold their kernel by its public name, which is a property now.
        if attribute in layer.__dict__:
            layer.__dict__[f"_{attribute}"] = layer.__dict__.pop(attribute)
    with keras_compat.unlocked(layer):
        layer.take_quantizer(quantizer)
    if layer.built:
        for kernel, _ in layer.kernels():
            keras_compat.set_autocast(kernel, False)
        _build_quantizers(layer)
    else:
        keras_compat.after_build(layer, lambda: _build_quantizers(layer))


def relu_in_place(layer: Layer, bits: int, max_value: float | None) -> None:
    """Makes a layer that is nothing but a ReLU, or an `Activation` of one, a `QuantReLU`."""
    object.__setattr__(layer, _BEFORE, type(layer))
    threshold = getattr(layer, "threshold", 0.0)
    keras_compat.change_class(layer, QuantReLU)
    layer.__dict__.update(max_value=max_value, negative_slope=0.0, threshold=threshold)
    with keras_compat.unlocked(layer):
        layer.activation_quantizer = ActivationQuantizer(
            bits, limit=max_value, name="activation_quantizer", trainable=layer.trainable
        )
        with _scope(layer):
            layer.activation_quantizer.build()


def fuse_in_place(layer: Layer) -> None:
    """Makes a BatchNormalization a fused one."""
    object.__setattr__(layer, _BEFORE, type(layer))
    keras_compat.change_class(layer, FusedBatchNormalization)


def _build_quantizers(layer: QuantizedLayer) -> None:
    with keras_compat.unlocked(layer), _scope(layer):
        layer.build_quantizers()


@contextlib.contextmanager
def _scope(layer: Layer) -> Iterator[None]:
    """The name scope that a layer was built in."""
    with contextlib.ExitStack() as scopes:
        for name in (layer.path or layer.name).split("/"):
            scopes.enter_context(keras.name_scope(name))
        yield


def float_in_place(layer: Layer, on_grid: bool = True) -> None:
    """Makes a quantized layer what it was, or its plain twin if it was made quantized, with its
    kernels on their grids or as they were trained; any other layer stays.
    """
    entry = quantized_entry_for(layer)
    plain = entry.float_class if entry else _PLAIN.get(type(layer))
    if plain is None:
        return
    before = layer.__dict__.pop(_BEFORE, plain)
    keras_compat.only_build(layer)
    if isinstance(layer, QuantizedLayer):
        for kernel, quantizer in layer.kernels():
            read = quantizer.call if on_grid else quantizer.quantized_from
            kernel.assign(read(kernel.value))
            keras_compat.set_autocast(kernel, True)
        for attribute in layer.kernel_channel_axes:
            # Where the class has no property, its kernel goes by its public name.
            if not hasattr(before, attribute) and f"_{attribute}" in layer.__dict__:
                layer.__dict__[attribute] = layer.__dict__.pop(f"_{attribute}")
    for name in [name for name in layer.__dict__ if name.endswith("_quantizer")]:
        if isinstance(layer.__dict__[name], Layer):
            keras_compat.drop_layer(layer, name)
    keras_compat.change_class(layer, before)


@serializable
class QuantizedInPlace:
    """What the class of a layer or model of the user's gets as a first base while layers inside it
    are quantized: a config that tells which.

    Saved files name this class. It makes the float layer from the user's class, as Keras does, and
    quantizes in it what was.
    """

    made_from: type[Layer]

    def get_config(self) -> dict[str, Any]:
        marked = type(self)
        # Keras asks the class itself whether it has a config of its own.
        object.__setattr__(self, "__class__", marked.made_from)
        try:
            serialized = keras.saving.serialize_keras_object(self)
        finally:
            object.__setattr__(self, "__class__", marked)
        assert isinstance(serialized, dict)
        assert isinstance(self, Layer)
        serialized.pop("compile_config", None)
        # Layers without a build of their own are built by their first call, not from shapes.
        if not isinstance(self, keras.Model) and marked.made_from.build is Layer.build:
            serialized.pop("build_config", None)
        return {"layer": serialized, "quantized": _told(self)}

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config["layer"])
        for told in config["quantized"]:
            _quantize_again(layer, told["place"], told)
        mark(layer)
        return layer


def mark(model: Layer) -> None:
    """Has layers of the user's own classes tell in their configs what is quantized inside them."""
    for part in keras_compat.flattened_layers(model):
        cls = type(part)
        if (
            is_of_user(part)
            and not isinstance(part, _OURS)
            and not isinstance(part, QuantizedInPlace)
            and _told(part)
        ):
            object.__setattr__(part, "__class__", _marked(cls))  # pyright: ignore[reportArgumentType]


def unmark(model: Layer) -> None:
    """Undoes `mark`."""
    for part in keras_compat.flattened_layers(model):
        if isinstance(part, QuantizedInPlace):
            object.__setattr__(part, "__class__", type(part).made_from)


_OURS = (
    *(QuantizedLayer, QuantizedComposite, QuantReLU, QuantIdentity, ActivationQuantizer),
    FusedBatchNormalization,
)


@functools.cache
def _marked(cls: Any) -> type:
    told = {"made_from": cls, "__module__": cls.__module__, "__doc__": cls.__doc__}
    marked = type(cls)(cls.__name__, (QuantizedInPlace, cls), told)
    # Files are to name the base, which makes a layer of any class.
    register = keras.saving.register_keras_serializable("bmpq_tf", QuantizedInPlace.__name__)
    register(marked)
    register(QuantizedInPlace)
    return marked


def _told(holder: Layer) -> list[dict[str, Any]]:
    """What is quantized inside a layer: places, as numbers of the layers on the way, and how."""
    found: list[dict[str, Any]] = []
    seen: set[int] = set()

    def walk(layer: Layer, place: list[int]) -> None:
        for number, part in enumerate(_inside(layer)):
            if id(part) in seen:
                continue
            seen.add(id(part))
            here = [*place, number]
            if isinstance(part, (QuantizedLayer, QuantizedComposite)):
                found.append({"place": here, "quantizer": part.quantizer.to_dict()})
            elif isinstance(part, QuantReLU):
                bits = part.activation_quantizer.bits
                found.append({"place": here, "bits": bits, "max_value": part.max_value})
            elif isinstance(part, FusedBatchNormalization):
                found.append({"place": here, "fused": True})
            else:
                walk(part, here)

    walk(holder, [])
    return found


def _inside(layer: Layer) -> list[Layer]:
    """The layers that a layer holds, in an order that does not depend on whether it is built: a
    sequential model gets an input layer and a graph then.
    """
    inside = keras_compat.layers_inside(layer)
    if not isinstance(layer, keras.Sequential):
        return inside
    first = layer.layers
    known = {id(part) for part in first}
    made = (keras.layers.InputLayer, type(keras_compat.functional(layer)))
    return [*first, *(one for one in inside if id(one) not in known and not isinstance(one, made))]


def _quantize_again(holder: Layer, place: list[int], told: dict[str, Any]) -> None:
    part = holder
    for number in place:
        inside = _inside(part)
        if number >= len(inside):
            raise ValueError(
                f"Layer '{holder.name}' ({type(holder).__name__}) is not as it was saved: a layer "
                f"inside '{part.name}' is missing. Make its layers in __init__ or build, not in "
                "call, or make the model anew, quantize it and load weights into it."
            )
        part = inside[number]
    # Its class may have made it quantized from the config.
    if isinstance(part, _OURS):
        return
    if "bits" in told:
        relu_in_place(part, told["bits"], told["max_value"])
    elif "fused" in told:
        fuse_in_place(part)
    else:
        quantize_in_place(part, renamed(part, told["quantizer"]))


def renamed(layer: Layer, quantizer: dict[str, Any]) -> dict[str, Any]:
    """The config of a composite with the names that the layers inside have now: Keras numbers those
    that were given none anew.
    """
    inside = [part for part in keras_compat.layers_inside(layer) if entry_for(part)]
    told = quantizer.get("sublayers")
    if not told or len(inside) != len(told):
        return quantizer
    named = {
        part.name: one and renamed(part, one)
        for part, one in zip(inside, told.values(), strict=True)
    }
    return {**quantizer, "sublayers": named}
