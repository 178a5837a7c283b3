"""The registry: which quantized class stands for which Keras class, and what is known of it."""

import dataclasses
import inspect
from collections.abc import Callable

import keras

from bmpq_tf.layers.quantized_layer import ChannelAxes, quantized_weight


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the registry knows of a Keras class: its quantized twin and the output-channel axes of each kernel."""

    float_class: type[keras.layers.Layer]
    quantized_class: type[keras.layers.Layer]
    kernel_channel_axes: dict[str, ChannelAxes]


_BY_FLOAT_CLASS: dict[type, Entry] = {}
_BY_QUANTIZED_CLASS: dict[type, Entry] = {}


def register(float_class: type[keras.layers.Layer], **kernel_channel_axes: ChannelAxes) -> Callable[[type], type]:
    """Decorates the quantized twin of `float_class`; the keywords name its kernels and their output-channel axes,
    or a function that tells a layer's axes."""

    def decorate(quantized_class: type) -> type:
        quantized_class.kernel_channel_axes = kernel_channel_axes
        for attribute in kernel_channel_axes:
            setattr(quantized_class, attribute, quantized_weight(attribute))
        quantized_class.__signature__ = _signature_with_quantizer(float_class)
        entry = Entry(float_class, quantized_class, kernel_channel_axes)
        _BY_FLOAT_CLASS[float_class] = _BY_QUANTIZED_CLASS[quantized_class] = entry
        return keras.saving.register_keras_serializable("bmpq_tf")(quantized_class)

    return decorate


def entry_for(layer: keras.layers.Layer) -> Entry | None:
    """Returns the entry whose Keras class is exactly the layer's; a user's subclass may do anything, so it has none."""
    return _BY_FLOAT_CLASS.get(type(layer))


def quantized_entry_for(layer: keras.layers.Layer) -> Entry | None:
    """Returns the entry whose quantized class is exactly the layer's."""
    return _BY_QUANTIZED_CLASS.get(type(layer))


def registered() -> list[Entry]:
    """Returns every entry, in the order of registration."""
    return list(_BY_FLOAT_CLASS.values())


def _signature_with_quantizer(float_class: type) -> inspect.Signature:
    signature = inspect.signature(float_class)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    rest = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    quantizer = inspect.Parameter("quantizer", inspect.Parameter.KEYWORD_ONLY, default=None)
    return signature.replace(parameters=[*parameters, quantizer, *rest])
