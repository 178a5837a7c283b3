"""Trained models as a conversion needs them: in float32, and with kernels and ranges as constants.

For as long as a conversion takes, the model itself is changed, which needs no second one in memory.
"""

import contextlib
from collections.abc import Iterator

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.conversion.cloning import clone
from bmpq_tf.conversion.supported_models import check_quantized
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.base import QuantizedLayer
from bmpq_tf.layers.serialization import is_of_user


@contextlib.contextmanager
def in_float32(model: keras.Model) -> Iterator[keras.Model]:
    """Gives the model, or, where it was trained in 16 bits (`mixed_float16`, `mixed_bfloat16`), one
    that computes in float32 as files do: a copy, or the model itself for a while if classes of the
    user's make it.

    Raises:
        TypeError, ValueError: as `dequantize_model`.
    """
    check_quantized(model)
    parts = keras_compat.flattened_layers(model)
    mixed = [part for part in parts if part.compute_dtype != part.variable_dtype]
    if mixed and not any(is_of_user(part) for part in parts):
        copy = clone(model, lambda layer, config: None, in_variable_dtype=True)
        # What layers hold that tell their parts' dtypes in their own configs.
        for part in keras_compat.flattened_layers(copy):
            if part.compute_dtype != part.variable_dtype:
                part.dtype_policy = keras.DTypePolicy(part.variable_dtype)
        yield copy
        return
    policies = [part.dtype_policy for part in mixed]
    try:
        for part in mixed:
            part.dtype_policy = keras.DTypePolicy(part.variable_dtype)
        yield model
    finally:
        for part, policy in zip(mixed, policies, strict=True):
            part.dtype_policy = policy


@contextlib.contextmanager
def frozen(model: keras.Model) -> Iterator[keras.Model]:
    """Gives the model itself, for conversion, with kernels that are constants on their grids, and
    activations that are rounded in fixed ranges; at the end it is again what it was.

    Raises:
        TypeError, ValueError: as `dequantize_model`; also an activation quantizer that has no range
            yet.
    """
    check_quantized(model)
    parts = keras_compat.flattened_layers(model)
    layers = [part for part in parts if isinstance(part, QuantizedLayer)]
    quantizers = [part for part in parts if isinstance(part, ActivationQuantizer)]
    kept = []
    try:
        is_trained = any(quantizer.has_range for quantizer in quantizers)
        for quantizer in quantizers:
            quantizer.freeze(is_trained)
        for layer in layers:
            kept.append([kernel.numpy() for kernel, _ in layer.kernels()])
            layer.freeze()
        yield model
    finally:
        for layer, kernels in zip(layers, kept, strict=False):
            layer.thaw(kernels)
        for quantizer in quantizers:
            quantizer.thaw()
