"""Quantized twins of the Keras layers that hold layers: attention, recurrent layers, wrappers.

Only names and what they hold.
"""

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.composite import QuantizedComposite
from bmpq_tf.layers.registry import register


@register(keras.layers.MultiHeadAttention)
class QuantMultiHeadAttention(QuantizedComposite, keras.layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` with its projections quantized.

    `query`, `key`, `value`, `attention_output` and, if any, `gate`.

    Example:
        >>> layer = bmpq_tf.layers.QuantMultiHeadAttention(2, 4, quantizer={"candidate_bits": (4,)})
        >>> layer(images[..., 0], images[..., 0]).shape, type(layer.query_dense).__name__
        (TensorShape([32, 8, 8]), 'QuantEinsumDense')
    """


@register(keras.layers.GroupQueryAttention)
class QuantGroupQueryAttention(QuantizedComposite, keras.layers.GroupQueryAttention):
    """`keras.layers.GroupQueryAttention` with its projections quantized, as
    `QuantMultiHeadAttention`.

    Example:
        >>> quantizer = {"candidate_bits": (2, 4, 8)}
        >>> layer = bmpq_tf.layers.QuantGroupQueryAttention(4, 4, 2, quantizer=quantizer)
        >>> layer(images[..., 0], images[..., 0]).shape
        TensorShape([32, 8, 8])
    """


@register(keras.layers.LSTM)
class QuantLSTM(QuantizedComposite, keras.layers.LSTM):
    """`keras.layers.LSTM` with a quantized cell.

    Example:
        >>> layer = bmpq_tf.layers.QuantLSTM(3, quantizer={"candidate_bits": (2, 4, 8)})
        >>> layer(images[..., 0]).shape, type(layer.cell).__name__
        (TensorShape([32, 3]), 'QuantLSTMCell')
    """


@register(keras.layers.GRU)
class QuantGRU(QuantizedComposite, keras.layers.GRU):
    """`keras.layers.GRU` with a quantized cell.

    Example:
        >>> layer = bmpq_tf.layers.QuantGRU(3, return_sequences=True)
        >>> layer(images[..., 0]).shape, type(layer.cell).__name__
        (TensorShape([32, 8, 3]), 'QuantGRUCell')
    """


@register(keras.layers.SimpleRNN)
class QuantSimpleRNN(QuantizedComposite, keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN` with a quantized cell.

    Example:
        >>> layer = bmpq_tf.layers.QuantSimpleRNN(3, quantizer={"candidate_bits": (2, 4)})
        >>> layer(images[..., 0]).shape, [part.width for kernel, part in layer.cell.kernels()]
        (TensorShape([32, 3]), [4, 4])
    """


@register(keras.layers.RNN, held={"cell": "cell"})
class QuantRNN(QuantizedComposite, keras.layers.RNN):
    """`keras.layers.RNN` around a quantized cell.

    Example:
        >>> cell = keras.layers.GRUCell(3)
        >>> layer = bmpq_tf.layers.QuantRNN(cell, quantizer={"candidate_bits": (2, 4, 8)})
        >>> layer(images[..., 0]).shape, type(layer.cell).__name__
        (TensorShape([32, 3]), 'QuantGRUCell')
    """


@register(keras.layers.StackedRNNCells, held={"cells": "cells"})
class QuantStackedRNNCells(QuantizedComposite, keras.layers.StackedRNNCells):
    """`keras.layers.StackedRNNCells` of quantized cells.

    Example:
        >>> cells = [keras.layers.LSTMCell(4), keras.layers.GRUCell(3)]
        >>> stacked = bmpq_tf.layers.QuantStackedRNNCells(cells)
        >>> [type(cell).__name__ for cell in stacked.cells]
        ['QuantLSTMCell', 'QuantGRUCell']
    """


@register(keras.layers.TimeDistributed, held={"layer": "layer"})
class QuantTimeDistributed(QuantizedComposite, keras.layers.TimeDistributed):
    """`keras.layers.TimeDistributed` around a quantized layer.

    One use of its kernels a call, whatever the number of steps.

    Raises:
        ValueError: from a call: activations are rounded inside, and the number of steps is unknown.

    Example:
        >>> dense = keras.layers.Dense(3)
        >>> layer = bmpq_tf.layers.QuantTimeDistributed(dense, quantizer={"candidate_bits": (2,)})
        >>> layer(images[..., 0]).shape
        TensorShape([32, 8, 3])
    """

    def call(self, inputs, training=None, mask=None):
        """As Keras's."""
        rounded = [
            layer.path
            for layer in keras_compat.flattened_layers(self)
            if isinstance(layer, ActivationQuantizer)
        ]
        # Keras maps the layer over such steps by TensorFlow's vectorized_map, where a quantizer has
        # no gradient and cannot keep its range.
        if rounded and inputs.shape[1] is None:
            raise ValueError(
                f"Layer '{self.name}' rounds activations at every step of time, which it cannot "
                "where the number of steps is unknown. "
                f"Received: inputs of shape {tuple(inputs.shape)}. Give data of a fixed number of "
                "steps, or leave activation_bits out."
            )
        return super().call(inputs, training=training, mask=mask)


@register(
    keras.layers.Bidirectional, held={"layer": "forward_layer", "backward_layer": "backward_layer"}
)
class QuantBidirectional(QuantizedComposite, keras.layers.Bidirectional):
    """`keras.layers.Bidirectional` around two quantized layers.

    Example:
        >>> lstm = keras.layers.LSTM(3)
        >>> layer = bmpq_tf.layers.QuantBidirectional(lstm, quantizer={"candidate_bits": (2, 4, 8)})
        >>> layer(images[..., 0]).shape, type(layer.backward_layer.cell).__name__
        (TensorShape([32, 6]), 'QuantLSTMCell')
    """
