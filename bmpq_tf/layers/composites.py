"""Quantized twins of the Keras layers that hold layers: attention, recurrent layers, wrappers. Only names and what they hold."""

import keras

from bmpq_tf.layers.composite import QuantizedComposite
from bmpq_tf.layers.registry import register


@register(keras.layers.MultiHeadAttention)
class QuantMultiHeadAttention(QuantizedComposite, keras.layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` with its projections quantized: `query`, `key`, `value`, `attention_output` and, if any, `gate`."""


@register(keras.layers.GroupQueryAttention)
class QuantGroupQueryAttention(QuantizedComposite, keras.layers.GroupQueryAttention):
    """`keras.layers.GroupQueryAttention` with its projections quantized, as `QuantMultiHeadAttention`."""


@register(keras.layers.LSTM)
class QuantLSTM(QuantizedComposite, keras.layers.LSTM):
    """`keras.layers.LSTM` with a quantized cell."""


@register(keras.layers.GRU)
class QuantGRU(QuantizedComposite, keras.layers.GRU):
    """`keras.layers.GRU` with a quantized cell."""


@register(keras.layers.SimpleRNN)
class QuantSimpleRNN(QuantizedComposite, keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN` with a quantized cell."""


@register(keras.layers.RNN, held={"cell": "cell"})
class QuantRNN(QuantizedComposite, keras.layers.RNN):
    """`keras.layers.RNN` around a quantized cell."""


@register(keras.layers.StackedRNNCells, held={"cells": "cells"})
class QuantStackedRNNCells(QuantizedComposite, keras.layers.StackedRNNCells):
    """`keras.layers.StackedRNNCells` of quantized cells."""


@register(keras.layers.TimeDistributed, held={"layer": "layer"})
class QuantTimeDistributed(QuantizedComposite, keras.layers.TimeDistributed):
    """`keras.layers.TimeDistributed` around a quantized layer; one use of its kernels a call, whatever the number of steps."""


@register(keras.layers.Bidirectional, held={"layer": "forward_layer", "backward_layer": "backward_layer"})
class QuantBidirectional(QuantizedComposite, keras.layers.Bidirectional):
    """`keras.layers.Bidirectional` around two quantized layers."""
