"""The mixin that turns a Keras layer with kernels into its quantized twin."""

from collections.abc import Callable

import keras
import tensorflow as tf

from bmpq_tf.layers.config import QuantizerConfig
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer

# Axes of a kernel that are output channels, or how to tell them for a layer.
ChannelAxes = tuple[int, ...] | Callable[[keras.layers.Layer], tuple[int, ...]]


class QuantizedLayer:
    """Gives a Keras layer kernels that are fake-quantized whenever they are read.

    A subclass names it before the Keras class and is decorated with `register`. Constructor, config and call stay the Keras
    class's own, with one more keyword: `quantizer`, a `QuantizerConfig` or the plain dict of one.
    """

    kernel_channel_axes: dict[str, "ChannelAxes"] = {}

    def __init__(self, *args, quantizer=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.quantizer = QuantizerConfig.of(quantizer)
        for attribute, channel_axes in self.kernel_channel_axes.items():
            axes = channel_axes(self) if callable(channel_axes) else channel_axes
            setattr(self, f"{attribute}_quantizer", KernelQuantizer(self.quantizer, axes, name=f"{attribute}_quantizer", trainable=self.trainable))

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


def quantized_weight(attribute: str) -> property:
    """Returns a property that quantizes on reading; the setter serves the layers that assign their kernel by its public name."""
    private = f"_{attribute}"

    def read(layer):
        if not layer.built:
            raise AttributeError(f"You must build the layer before accessing `{attribute}`.")
        quantized = getattr(layer, f"{attribute}_quantizer").call(tf.convert_to_tensor(getattr(layer, private).value))
        return tf.cast(quantized, layer.compute_dtype)

    def assign(layer, value):
        setattr(layer, private, value)

    return property(read, assign, doc=f"The fake-quantized weight, in the compute dtype; the float one is `{private}`.")
