"""Quantized Keras layers: a mixin, one nearly empty class a layer, and the registry that pairs them with Keras's."""

from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.activations import QuantIdentity, QuantReLU
from bmpq_tf.layers.config import QuantizerConfig
from bmpq_tf.layers.core import (
    QuantConv1D,
    QuantConv1DTranspose,
    QuantConv2D,
    QuantConv2DTranspose,
    QuantConv3D,
    QuantDense,
    QuantDepthwiseConv1D,
    QuantDepthwiseConv2D,
    QuantEinsumDense,
    QuantEmbedding,
    QuantSeparableConv1D,
    QuantSeparableConv2D,
)
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer
from bmpq_tf.layers.quantized_layer import QuantizedLayer, entry_for, quantized_entry_for, registered

__all__ = [
    "ActivationQuantizer",
    "KernelQuantizer",
    "QuantConv1D",
    "QuantConv1DTranspose",
    "QuantConv2D",
    "QuantConv2DTranspose",
    "QuantConv3D",
    "QuantDense",
    "QuantDepthwiseConv1D",
    "QuantDepthwiseConv2D",
    "QuantEinsumDense",
    "QuantEmbedding",
    "QuantIdentity",
    "QuantReLU",
    "QuantSeparableConv1D",
    "QuantSeparableConv2D",
    "QuantizedLayer",
    "QuantizerConfig",
    "entry_for",
    "quantized_entry_for",
    "registered",
]
