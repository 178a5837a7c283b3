"""The mixin that turns a Keras layer with kernels into its quantized twin."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.config import QuantizerConfig
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer

# Axes of a kernel that are output channels, or how to tell them for a layer.
ChannelAxes = tuple[int, ...] | Callable[[keras.layers.Layer], tuple[int, ...]]
WEIGHT_DTYPE = "float32"
# The activations that PACT stands for, and the most that they give; TensorFlow's become Keras's in
# saved files.
RELU_LIMITS = {
    keras.activations.relu: None,
    keras.activations.relu6: 6.0,
    tf.nn.relu: None,
    tf.nn.relu6: 6.0,
}

# What `kernels_read_once` has read, by layer and attribute; each thread, and so each replica, has
# its own.
_READ: contextvars.ContextVar[dict[tuple[int, str], tf.Tensor]] = contextvars.ContextVar(
    "kernels_read_once"
)

# A mixin: Keras's class comes behind it.
_Layer = keras.layers.Layer if TYPE_CHECKING else object


class QuantizedLayer(_Layer):
    """Gives a Keras layer kernels that are fake-quantized whenever they are read, and activations
    that are if its config says so.

    A subclass names it before the Keras class and is decorated with `register`. Constructor, config
    and call stay the Keras class's own, with one more keyword: `quantizer`, a `QuantizerConfig` or
    the plain dict of one.
    """

    kernel_channel_axes: dict[str, "ChannelAxes"] = {}
    # Whether the Keras class's call() takes `training`.
    parent_takes_training = False

    def __init__(self, *args, quantizer=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.take_quantizer(quantizer)

    def take_quantizer(self, quantizer) -> None:
        """Gives the layer the quantizers that a config asks for; they are not built yet."""
        self.quantizer = QuantizerConfig.of(quantizer)
        if (why := unsupported_policy(self)) is not None:
            raise ValueError(
                f"Layer '{self.name}' cannot be quantized: {why}. Received: "
                f"dtype={self.dtype_policy.name!r}."
            )
        for attribute, channel_axes in self.kernel_channel_axes.items():
            axes = channel_axes(self) if callable(channel_axes) else channel_axes
            setattr(
                self,
                f"{attribute}_quantizer",
                KernelQuantizer(
                    self.quantizer, axes, name=f"{attribute}_quantizer", trainable=self.trainable
                ),
            )
        config, activation = self.quantizer, getattr(self, "activation", None)
        if is_cell(self) and (config.input_bits or config.activation_bits):
            raise ValueError(
                f"The activations of a recurrent cell stay float. Received: quantizer={config} for "
                f"'{self.name}'. Leave activation_bits and input_bits out."
            )
        if isinstance(self, keras.layers.Embedding) and config.input_bits:
            raise ValueError(
                "An embedding reads whole numbers, which are not rounded. Received: "
                f"input_bits={config.input_bits} for '{self.name}'. Leave input_bits out."
            )
        self.input_quantizer = self.output_quantizer = None
        if config.input_bits:
            self.input_quantizer = ActivationQuantizer(
                config.input_bits, signed=True, name="input_quantizer", trainable=self.trainable
            )
        if config.activation_bits and activation in RELU_LIMITS:
            limit = RELU_LIMITS[activation]
            self.output_quantizer = ActivationQuantizer(
                config.activation_bits,
                limit=limit,
                name="output_quantizer",
                trainable=self.trainable,
            )
        self._frozen = False

    def add_weight(self, *args, name=None, **kwargs):
        if name in self.kernel_channel_axes:
            if (constraint := kwargs.get("constraint")) is not None:
                raise ValueError(
                    f"Layer '{self.name}' cannot keep its quantized {name} to a constraint, which "
                    "would hold for the float weights only. "
                    f"Received: {constraint!r}. Leave the constraint out, or use Keras's own layer."
                )
            # Scales and rounding are float32 under every dtype policy; the result is cast instead.
            kwargs["autocast"] = False
        return super().add_weight(*args, name=name, **kwargs)

    # Without a shape too: an embedding needs none.
    def build(self, input_shape=None):
        super().build(input_shape)
        self.build_quantizers()

    def build_quantizers(self) -> None:
        """Builds the quantizers of a layer whose kernels are there."""
        # Embeddings may be built twice.
        for kernel, quantizer in self.kernels():
            if not quantizer.built:
                quantizer.build_for(kernel)
        for quantizer in self.activation_quantizers():
            if not quantizer.built:
                quantizer.build()

    def call(self, inputs, *args, training=None, **kwargs):
        if self.parent_takes_training:
            kwargs["training"] = training
        if self.input_quantizer:
            inputs = self.input_quantizer.call(inputs, training)
        outputs = super().call(inputs, *args, **kwargs)
        return self.output_quantizer.call(outputs, training) if self.output_quantizer else outputs

    def rematerialized_call(self, layer_call, *args, **kwargs):
        return keras_compat.without_keywords(super().rematerialized_call, layer_call, args, kwargs)

    def activation_quantizers(self) -> list[ActivationQuantizer]:
        """Returns the quantizers of the input and of the output, where the layer has them."""
        return [
            quantizer for quantizer in (self.input_quantizer, self.output_quantizer) if quantizer
        ]

    def freeze(self) -> None:
        """Puts the kernels on their grid for good, so that a conversion sees them as constants.

        The float ones are lost.
        """
        for kernel, quantizer in self.kernels():
            kernel.assign(quantizer.call(tf.convert_to_tensor(kernel.value)))
        self._frozen = True

    def thaw(self, kernels: list) -> None:
        """Undoes `freeze`, given what the kernels were."""
        for (kernel, _), values in zip(self.kernels(), kernels, strict=True):
            kernel.assign(values)
        self._frozen = False

    def kernels(self) -> list[tuple[keras.Variable, KernelQuantizer]]:
        """Returns each float kernel with its quantizer.

        None before the layer is built, as one that no call reaches never is.
        """
        names = [name for name in self.kernel_channel_axes if hasattr(self, f"_{name}")]
        return [(getattr(self, f"_{name}"), getattr(self, f"{name}_quantizer")) for name in names]

    def enable_lora(self, *args, **kwargs):
        """Not supported: what reads as the kernel is quantized, and nothing is added to it."""
        raise NotImplementedError(
            f"Layer '{self.name}' is quantized and takes no LoRA weights. Use Keras's own layer "
            "for them."
        )

    def save_own_variables(self, store):
        # Dense, Conv, EinsumDense and Embedding would store the quantized kernel and lose the float
        # one.
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self):
        return {**super().get_config(), "quantizer": self.quantizer.to_dict()}


def is_cell(layer) -> bool:
    """Whether this is a recurrent layer's cell, called once for every step of time."""
    return hasattr(layer, "state_size")


def unsupported_policy(layer: keras.layers.Layer) -> str | None:
    """Returns why the layer's dtype policy cannot be used with quantized kernels, or `None`."""
    if isinstance(layer.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy):
        return "its dtype policy has Keras quantize the weights already"
    if layer.variable_dtype != WEIGHT_DTYPE:
        return (
            f"its weights are {layer.variable_dtype}, and quantized ones are float32 (float32, "
            "mixed_float16 and mixed_bfloat16 will do)"
        )
    return None


@contextlib.contextmanager
def kernels_read_once(layer: keras.layers.Layer) -> Iterator[None]:
    """Within it, every quantized kernel below `layer` reads as what it was at the start.

    A loop over time would else quantize a kernel at every step and take each for a use of its own:
    `|g|` summed over steps is not the `|g|` of their sum, which is what the mini-batch's bit
    gradients are made of.
    """
    # A layer not built yet has no kernel to read; it is built, and read, inside.
    parts = [
        part
        for part in keras_compat.flattened_layers(layer)
        if isinstance(part, QuantizedLayer) and part.built
    ]
    values = {
        (id(part), attribute): getattr(part, attribute)
        for part in parts
        for attribute in part.kernel_channel_axes
    }
    token = _READ.set({**_READ.get({}), **values})
    try:
        yield
    finally:
        _READ.reset(token)


def quantized_weight(attribute: str) -> property:
    """Returns a property that quantizes on reading.

    The setter serves the layers that assign their kernel by its public name.
    """
    private = f"_{attribute}"

    def read(layer):
        if not layer.built:
            raise AttributeError(f"You must build the layer before accessing `{attribute}`.")
        if (once := _READ.get({}).get((id(layer), attribute))) is not None:
            return once
        weight = tf.convert_to_tensor(getattr(layer, private).value)
        quantized = (
            weight
            if layer._frozen
            else getattr(layer, f"{attribute}_quantizer").call(weight, layer.compute_dtype)
        )
        return tf.cast(quantized, layer.compute_dtype)

    def assign(layer, value):
        setattr(layer, private, value)

    return property(
        read,
        assign,
        doc=f"The fake-quantized weight, in the compute dtype; the float one is `{private}`.",
    )
