"""Quantized twins of Keras's layers. What `dir(bmpq_tf.layers)` shows is public.

The modules inside are internal.

`quantized_layers` and `quantized_wrappers` hold one nearly empty class a layer, on the mixins of
`base` and `composite`; `registry` pairs them with Keras's; `config` is what a layer is told;
`kernel_quantizer` and `activation_quantizer` hold the state.
"""

from bmpq_tf.layers.activations import QuantIdentity, QuantReLU
from bmpq_tf.layers.config import QuantizerConfig
from bmpq_tf.layers.normalization import FusedBatchNormalization
from bmpq_tf.layers.quantized_layers import (
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
from bmpq_tf.layers.quantized_wrappers import (
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
    "FusedBatchNormalization",
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
    "QuantizerConfig",
]


def __dir__() -> list[str]:
    return __all__
