"""Copies of a trained model for conversion.

In float32, and with its kernels and ranges as constants.
"""

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.conversion.cloning import clone
from bmpq_tf.conversion.supported_models import check_quantized
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.base import QuantizedLayer


def float32_model(model: keras.Model) -> keras.Model:
    """Returns the model, or, where it was trained in 16 bits (`mixed_float16`, `mixed_bfloat16`), a
    copy that computes in float32 as files do.

    Raises:
        TypeError, ValueError: as `dequantize_model`.
    """
    check_quantized(model)
    mixed = any(
        layer.compute_dtype != layer.variable_dtype
        for layer in keras_compat.flattened_layers(model)
    )
    return clone(model, lambda layer, config: None, in_variable_dtype=True) if mixed else model


def frozen_model(model: keras.Model) -> keras.Model:
    """Returns a copy for conversion.

    Its kernels are constants on their grid, its activations are rounded in fixed ranges.

    Raises:
        TypeError, ValueError: as `dequantize_model`; also an activation quantizer that has no range
            yet.
    """
    check_quantized(model)
    copy = clone(model, lambda layer, config: None)
    parts = keras_compat.flattened_layers(copy)
    quantizers = [part for part in parts if isinstance(part, ActivationQuantizer)]
    is_trained = any(quantizer.has_range for quantizer in quantizers)
    for quantizer in quantizers:
        quantizer.freeze(is_trained)
    for part in parts:
        if isinstance(part, QuantizedLayer):
            part.freeze()
    return copy
