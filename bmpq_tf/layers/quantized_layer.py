"""The mixin that turns a Keras layer into its quantized twin, and the registry of the twins."""

import dataclasses
import inspect
from collections.abc import Callable

import keras
import tensorflow as tf

from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.config import QuantizerConfig
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer

# Axes of a kernel that are output channels, or how to tell them for a layer.
ChannelAxes = tuple[int, ...] | Callable[[keras.layers.Layer], tuple[int, ...]]
# The activations that PACT stands for, and the most that they give.
RELU_LIMITS = {keras.activations.relu: None, keras.activations.relu6: 6.0}


class QuantizedLayer:
    """Gives a Keras layer kernels that are fake-quantized whenever they are read, and activations that are if its config says so.

    A subclass names it before the Keras class and is decorated with `register`. Constructor, config and call stay the Keras
    class's own, with one more keyword: `quantizer`, a `QuantizerConfig` or the plain dict of one.
    """

    kernel_channel_axes: dict[str, "ChannelAxes"] = {}
    # Whether the Keras class's call() takes `training`.
    parent_takes_training = False

    def __init__(self, *args, quantizer=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.quantizer = QuantizerConfig.of(quantizer)
        for attribute, channel_axes in self.kernel_channel_axes.items():
            axes = channel_axes(self) if callable(channel_axes) else channel_axes
            setattr(self, f"{attribute}_quantizer", KernelQuantizer(self.quantizer, axes, name=f"{attribute}_quantizer", trainable=self.trainable))
        bits, activation = self.quantizer, getattr(self, "activation", None)
        self.input_quantizer = self.output_quantizer = None
        if bits.input_bits:
            self.input_quantizer = ActivationQuantizer(bits.input_bits, signed=True, name="input_quantizer", trainable=self.trainable)
        if bits.activation_bits and activation in RELU_LIMITS:
            limit = RELU_LIMITS[activation]
            self.output_quantizer = ActivationQuantizer(bits.activation_bits, limit=limit, name="output_quantizer", trainable=self.trainable)
        self._frozen = False

    def add_weight(self, *args, name=None, **kwargs):
        if name in self.kernel_channel_axes:
            # Scales and rounding are float32 under every dtype policy; the result is cast instead.
            kwargs["autocast"] = False
        return super().add_weight(*args, name=name, **kwargs)

    def build(self, input_shape):
        super().build(input_shape)
        for kernel, quantizer in self.kernels():
            quantizer.build(kernel.shape)
            quantizer.initialise_scale(kernel)
        for quantizer in self.activation_quantizers():
            quantizer.build()

    def call(self, inputs, *args, training=None, **kwargs):
        if self.parent_takes_training:
            kwargs["training"] = training
        if self.input_quantizer:
            inputs = self.input_quantizer.call(inputs, training)
        outputs = super().call(inputs, *args, **kwargs)
        return self.output_quantizer.call(outputs, training) if self.output_quantizer else outputs

    def activation_quantizers(self) -> list[ActivationQuantizer]:
        """Returns the quantizers of the input and of the output, where the layer has them."""
        return [quantizer for quantizer in (self.input_quantizer, self.output_quantizer) if quantizer]

    def freeze(self) -> None:
        """Puts the kernels on their grid for good, so that a conversion sees them as constants; the float ones are lost."""
        for kernel, quantizer in self.kernels():
            kernel.assign(quantizer.call(tf.convert_to_tensor(kernel.value)))
        self._frozen = True

    def kernels(self) -> list[tuple[keras.Variable, KernelQuantizer]]:
        """Returns each float kernel with its quantizer."""
        return [(getattr(self, f"_{name}"), getattr(self, f"{name}_quantizer")) for name in self.kernel_channel_axes]

    def save_own_variables(self, store):
        # Dense, Conv, EinsumDense and Embedding would store the quantized kernel and lose the float one.
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self):
        return {**super().get_config(), "quantizer": self.quantizer.to_dict()}


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
        quantized_class.parent_takes_training = "training" in inspect.signature(float_class.call).parameters
        for attribute in kernel_channel_axes:
            setattr(quantized_class, attribute, _quantized_weight(attribute))
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


def _quantized_weight(attribute: str) -> property:
    """A property that quantizes on reading; the setter serves the layers that assign their kernel by its public name."""
    private = f"_{attribute}"

    def read(layer):
        if not layer.built:
            raise AttributeError(f"You must build the layer before accessing `{attribute}`.")
        weight = tf.convert_to_tensor(getattr(layer, private).value)
        quantized = weight if layer._frozen else getattr(layer, f"{attribute}_quantizer").call(weight)
        return tf.cast(quantized, layer.compute_dtype)

    def assign(layer, value):
        setattr(layer, private, value)

    return property(read, assign, doc=f"The fake-quantized weight, in the compute dtype; the float one is `{private}`.")


def _signature_with_quantizer(float_class: type) -> inspect.Signature:
    signature = inspect.signature(float_class)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    rest = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    quantizer = inspect.Parameter("quantizer", inspect.Parameter.KEYWORD_ONLY, default=None)
    return signature.replace(parameters=[*parameters, quantizer, *rest])
