"""Quantized Keras layers: two mixins, one nearly empty class a layer, and the registry that pairs them with Keras's."""

from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.activations import QuantIdentity, QuantReLU
from bmpq_tf.layers.base import QuantizedLayer
from bmpq_tf.layers.composite import CompositeConfig, QuantizedComposite
from bmpq_tf.layers.config import QuantizerConfig
from bmpq_tf.layers.core import (
    QuantConv1D,
    QuantConv1DTranspose,
    QuantConv2D,
    QuantConv2DTranspose,
    QuantConv3D,
    QuantConv3DTranspose,
    QuantDense,
    QuantDepthwiseConv1D,
    QuantDepthwiseConv2D,
    QuantEinsumDense,
    QuantEmbedding,
    QuantGRUCell,
    QuantLSTMCell,
    QuantSeparableConv1D,
    QuantSeparableConv2D,
    QuantSimpleRNNCell,
)
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer
from bmpq_tf.layers.normalization import FusedBatchNormalization
from bmpq_tf.layers.registry import entry_for, quantized_entry_for, registered
from bmpq_tf.layers.wrappers import (
    QuantBidirectional,
    QuantGroupQueryAttention,
    QuantGRU,
    QuantLSTM,
    QuantMultiHeadAttention,
    QuantRNN,
    QuantSimpleRNN,
    QuantStackedRNNCells,
    QuantTimeDistributed,
)

__all__ = [
    "ActivationQuantizer",
    "CompositeConfig",
    "FusedBatchNormalization",
    "KernelQuantizer",
    "QuantBidirectional",
    "QuantConv1D",
    "QuantConv1DTranspose",
    "QuantConv2D",
    "QuantConv2DTranspose",
    "QuantConv3D",
    "QuantConv3DTranspose",
    "QuantDense",
    "QuantDepthwiseConv1D",
    "QuantDepthwiseConv2D",
    "QuantEinsumDense",
    "QuantEmbedding",
    "QuantGRU",
    "QuantGRUCell",
    "QuantGroupQueryAttention",
    "QuantIdentity",
    "QuantLSTM",
    "QuantLSTMCell",
    "QuantMultiHeadAttention",
    "QuantRNN",
    "QuantReLU",
    "QuantSeparableConv1D",
    "QuantSeparableConv2D",
    "QuantSimpleRNN",
    "QuantSimpleRNNCell",
    "QuantStackedRNNCells",
    "QuantTimeDistributed",
    "QuantizedComposite",
    "QuantizedLayer",
    "QuantizerConfig",
    "entry_for",
    "quantized_entry_for",
    "registered",
]
