"""Layers that do nothing but quantize activations.

PACT in place of a ReLU, and a signed quantizer anywhere.
"""

import keras

from bmpq_tf._compat.keras import without_keywords
from bmpq_tf.arithmetic.activations import is_symmetric
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.serialization import serializable


@serializable
class QuantReLU(keras.layers.ReLU):
    """`keras.layers.ReLU` with its output rounded to `2^a - 1` steps below a learned clip (PACT,
    Choi et al. 2018; METHOD.md).

    Args:
        max_value: as Keras's; the clip never passes it.
        negative_slope: 0, since PACT starts at zero.
        threshold: as Keras's.
        bits: the width `a`: 16, 8, 4 or 2.
        **kwargs: `keras.layers.Layer`'s own.

    Raises:
        ValueError: the width is not 16, 8, 4 or 2, or the slope is not 0.

    Example:
        >>> outputs = bmpq_tf.layers.QuantReLU(bits=2)(images, training=True)
        >>> len(np.unique(outputs)) <= 4, float(np.min(outputs))
        (True, 0.0)
    """

    def __init__(
        self, max_value=None, negative_slope=0.0, threshold=0.0, *, bits: int = 8, **kwargs
    ):
        limit = None if max_value is None else float(max_value)
        super().__init__(limit, float(negative_slope), float(threshold), **kwargs)
        if negative_slope:
            raise ValueError(
                f"QuantReLU has no values below zero. Received: negative_slope={negative_slope}. "
                "Put QuantIdentity behind a leaky ReLU instead."
            )
        self.activation_quantizer = ActivationQuantizer(
            bits, limit=limit, name="activation_quantizer", trainable=self.trainable
        )

    def build(self, input_shape):
        self.activation_quantizer.build()

    def call(self, inputs, training=None):
        relu = super().call
        # A threshold's values, and negative ones in a symmetric range, the range does not cut off.
        if self.threshold or is_symmetric(self.activation_quantizer.bits):
            return self.activation_quantizer.call(relu(inputs), training)
        return self.activation_quantizer.call(inputs, training, before=relu)

    def rematerialized_call(self, layer_call, *args, **kwargs):
        return without_keywords(super().rematerialized_call, layer_call, args, kwargs)

    def get_config(self):
        return {**super().get_config(), "bits": self.activation_quantizer.bits}


@serializable
class QuantIdentity(keras.layers.Identity):
    """Rounds what passes to `2^a - 1` steps of a learned range that may reach below zero
    (METHOD.md, "Activations").

    Args:
        bits: the width `a`: 16, 8, 4 or 2.
        **kwargs: `keras.layers.Layer`'s own.

    Raises:
        ValueError: the width is not 16, 8, 4 or 2.

    Example:
        >>> outputs = bmpq_tf.layers.QuantIdentity(bits=2)(images, training=True)
        >>> len(np.unique(outputs)) <= 4, bool(np.min(outputs) < 0.0)
        (True, True)
    """

    def __init__(self, *, bits: int = 8, **kwargs):
        super().__init__(**kwargs)
        self.activation_quantizer = ActivationQuantizer(
            bits, signed=True, name="activation_quantizer", trainable=self.trainable
        )

    def build(self, input_shape):
        self.activation_quantizer.build()

    def call(self, inputs, training=None):
        return self.activation_quantizer.call(inputs, training)

    def rematerialized_call(self, layer_call, *args, **kwargs):
        return without_keywords(super().rematerialized_call, layer_call, args, kwargs)

    def get_config(self):
        return {**super().get_config(), "bits": self.activation_quantizer.bits}
