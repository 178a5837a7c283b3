"""The registry: which quantized class stands for which Keras class, and what is known of it."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

import keras

from bmpq_tf.layers.base import ChannelAxes, kernels_read_once, quantized_weight
from bmpq_tf.layers.composite import QuantizedComposite
from bmpq_tf.layers.inheritance import config_of_parent, keras_class
from bmpq_tf.layers.serialization import serializable

Layer = keras.layers.Layer
_Class = TypeVar("_Class", bound=type)


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the registry knows of a Keras class.

    Attributes:
        float_class: Keras's class.
        quantized_class: its quantized twin.
        kernel_channel_axes: the output-channel axes of each kernel of its own, by attribute; empty
            for a composite.
        held: for a composite that is handed layers: the keys of its config that hold them, and the
            attributes they become.
    """

    float_class: type[Layer]
    quantized_class: type[Layer]
    kernel_channel_axes: Mapping[str, ChannelAxes]
    held: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_composite(self) -> bool:
        """Whether the kernels are those of layers inside."""
        return issubclass(self.quantized_class, QuantizedComposite)


_BY_FLOAT_CLASS: dict[type, Entry] = {}
_BY_QUANTIZED_CLASS: dict[type, Entry] = {}


def register(
    float_class: type[Layer],
    *,
    held: Mapping[str, str] | None = None,
    **kernel_channel_axes: ChannelAxes,
) -> Callable[[_Class], _Class]:
    """Decorates the quantized twin of `float_class`, a subclass of `QuantizedLayer` or of
    `QuantizedComposite`.

    Args:
        float_class: Keras's class.
        held: as in `Entry`.
        **kernel_channel_axes: the kernels' attributes, each with its output-channel axes or a
            function that tells a layer's.
    """

    def decorate(quantized_class: _Class) -> _Class:
        entry = Entry(float_class, quantized_class, kernel_channel_axes, held or {})
        if entry.is_composite:
            quantized_class.held, quantized_class.twin_of = entry.held, staticmethod(_twin_of)
            quantized_class.build = _checking_sublayers(quantized_class.build)
            quantized_class.call = _reading_kernels_once(quantized_class.call)
        else:
            quantized_class.kernel_channel_axes = kernel_channel_axes
            quantized_class.parent_takes_training = (
                "training" in inspect.signature(float_class.call).parameters
            )
            for attribute in kernel_channel_axes:
                setattr(quantized_class, attribute, quantized_weight(attribute))
        quantized_class.__signature__ = _signature_with_quantizer(float_class)
        _BY_FLOAT_CLASS[float_class] = _BY_QUANTIZED_CLASS[quantized_class] = entry
        return serializable(quantized_class)

    return decorate


def entry_for(layer: Layer) -> Entry | None:
    """Returns the entry whose Keras class a layer computes as: its own, or its parent's where a
    subclass changes nothing that matters.
    """
    parent = keras_class(layer)
    return _BY_FLOAT_CLASS.get(parent) if parent else None


def quantized_entry_for(layer: Layer) -> Entry | None:
    """Returns the entry whose quantized class is exactly the layer's."""
    return _BY_QUANTIZED_CLASS.get(type(layer))


def registered() -> list[Entry]:
    """Returns every entry, in the order of registration."""
    return list(_BY_FLOAT_CLASS.values())


def _twin_of(layer: Layer, quantizer) -> Layer | None:
    """Returns the quantized twin of a layer that a composite is about to hold, or `None` if the
    registry has none.

    Raises:
        ValueError: the layer is built, and its weights would be lost.
    """
    entry = entry_for(layer)
    if entry is None:
        return None
    if layer.built:
        raise ValueError(
            f"Layer '{layer.name}' ({type(layer).__name__}) is built already, and its quantized "
            "twin would start from other weights. "
            "Give a layer that is not built yet, or quantize the whole model with "
            "bmpq_tf.quantize_model(model)."
        )
    return entry.quantized_class.from_config({**config_of_parent(layer), "quantizer": quantizer})


# Keras looks at the signatures of `build` and `call`, which `wraps` keeps.
def _checking_sublayers(build: Callable) -> Callable:
    @functools.wraps(build)
    def checking_sublayers(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.check_sublayers()

    return checking_sublayers


def _reading_kernels_once(call: Callable) -> Callable:
    @functools.wraps(call)
    def reading_once(self, *args, **kwargs):
        with kernels_read_once(self):
            return call(self, *args, **kwargs)

    return reading_once


def _signature_with_quantizer(float_class: type) -> inspect.Signature:
    signature = inspect.signature(float_class)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    rest = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    quantizer = inspect.Parameter("quantizer", inspect.Parameter.KEYWORD_ONLY, default=None)
    return signature.replace(parameters=[*parameters, quantizer, *rest])
