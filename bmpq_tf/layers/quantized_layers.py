"""Quantized twins of Keras's layers. What they share is in the mixin.

Here stand only their names and kernels.

A kernel's channels are what `granularity="channel"` learns a scale for, and what files store one
for.
"""

import keras

from bmpq_tf.layers.base import QuantizedLayer
from bmpq_tf.layers.registry import register


@register(keras.layers.Dense, kernel=(-1,))
class QuantDense(QuantizedLayer, keras.layers.Dense):
    """`keras.layers.Dense` with a quantized kernel, whose channels are its output units.

    Example:
        >>> layer = bmpq_tf.layers.QuantDense(3, quantizer={"candidate_bits": (2,)})
        >>> layer.build((None, 5))
        >>> len(np.unique(layer.kernel))
        3
    """


def _einsum_output_axes(layer: keras.layers.EinsumDense) -> tuple[int, ...]:
    """The kernel's axes that are new in the output.

    Where there is none, the last of those that reach it from both operands: groups, positions or
    experts with a matrix each, which have their output units in common, since files hold scales for
    one axis.
    """
    operands, output = layer.equation.replace(" ", "").split("->")
    inputs, letters = operands.split(",")
    axes = range(-len(letters), 0)
    reaching = [axis for axis in axes if letters[axis] in output]
    new = tuple(axis for axis in reaching if letters[axis] not in inputs)
    return new or tuple(reaching[-1:])


@register(keras.layers.EinsumDense, kernel=_einsum_output_axes)
class QuantEinsumDense(QuantizedLayer, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` with a quantized kernel, whose channels are the positions of its
    axes that are in the output and not in the input.

    Example:
        >>> layer = bmpq_tf.layers.QuantEinsumDense("abc,cd->abd", (None, 5))
        >>> layer(images[..., 0]).shape
        TensorShape([32, 8, 5])
    """


@register(keras.layers.Embedding, embeddings=(-1,))
class QuantEmbedding(QuantizedLayer, keras.layers.Embedding):
    """`keras.layers.Embedding` with a quantized table, whose channels are the positions of the
    vectors: rows would cost a scale each.

    Example:
        >>> layer = bmpq_tf.layers.QuantEmbedding(10, 4, quantizer={"candidate_bits": (2, 4)})
        >>> layer(labels).shape
        TensorShape([32, 4])
    """

    def __init__(self, *args, weights=None, **kwargs):
        super().__init__(*args, **kwargs)
        # Keras would build the layer for them before it has a quantizer.
        if weights is not None:
            self.build()
            ((table, quantizer),) = self.kernels()
            table.assign(weights[0] if isinstance(weights, list) else weights)
            quantizer.initialise_scale(table)


@register(keras.layers.Conv1D, kernel=(-1,))
class QuantConv1D(QuantizedLayer, keras.layers.Conv1D):
    """`keras.layers.Conv1D` with a quantized kernel, whose channels are its filters.

    Example:
        >>> layer = bmpq_tf.layers.QuantConv1D(3, 3, quantizer={"candidate_bits": (2, 4, 8)})
        >>> layer(images[..., 0]).shape
        TensorShape([32, 6, 3])
    """


@register(keras.layers.Conv2D, kernel=(-1,))
class QuantConv2D(QuantizedLayer, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a quantized kernel, whose channels are its filters.

    Example:
        >>> layer = bmpq_tf.layers.QuantConv2D(3, 3, quantizer={"candidate_bits": (2, 4)})
        >>> layer(images).shape, layer.kernels()[0][1].width
        (TensorShape([32, 6, 6, 3]), 4)
    """


@register(keras.layers.Conv3D, kernel=(-1,))
class QuantConv3D(QuantizedLayer, keras.layers.Conv3D):
    """`keras.layers.Conv3D` with a quantized kernel, whose channels are its filters.

    Example:
        >>> layer = bmpq_tf.layers.QuantConv3D(3, 2, quantizer={"candidate_bits": (2, 8)})
        >>> layer(images[:, None].repeat(2, axis=1)).shape
        TensorShape([32, 1, 7, 7, 3])
    """


@register(keras.layers.Conv1DTranspose, kernel=(-2,))
class QuantConv1DTranspose(QuantizedLayer, keras.layers.Conv1DTranspose):
    """`keras.layers.Conv1DTranspose` with a quantized kernel, whose channels are its filters.

    Example:
        >>> layer = bmpq_tf.layers.QuantConv1DTranspose(3, 2, strides=2)
        >>> layer(images[..., 0]).shape, layer.kernels()[0][1].config.candidate_bits
        (TensorShape([32, 16, 3]), (2, 4, 8))
    """


@register(keras.layers.Conv2DTranspose, kernel=(-2,))
class QuantConv2DTranspose(QuantizedLayer, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` with a quantized kernel, whose channels are its filters.

    Example:
        >>> layer = bmpq_tf.layers.QuantConv2DTranspose(3, 2, quantizer={"scale": "max_abs"})
        >>> layer(images).shape
        TensorShape([32, 9, 9, 3])
    """


@register(keras.layers.Conv3DTranspose, kernel=(-2,))
class QuantConv3DTranspose(QuantizedLayer, keras.layers.Conv3DTranspose):
    """`keras.layers.Conv3DTranspose` with a quantized kernel, whose channels are its filters.

    Example:
        >>> layer = bmpq_tf.layers.QuantConv3DTranspose(3, 2, quantizer={"candidate_bits": (2, 4)})
        >>> layer(images[:, None]).shape
        TensorShape([32, 2, 9, 9, 3])
    """


@register(keras.layers.DepthwiseConv1D, kernel=(-2, -1))
class QuantDepthwiseConv1D(QuantizedLayer, keras.layers.DepthwiseConv1D):
    """`keras.layers.DepthwiseConv1D` with a quantized kernel, whose channels are its input channels
    times the multiplier.

    Example:
        >>> layer = bmpq_tf.layers.QuantDepthwiseConv1D(3, quantizer={"candidate_bits": (2, 4, 8)})
        >>> layer(images[..., 0]).shape
        TensorShape([32, 6, 8])
    """


@register(keras.layers.DepthwiseConv2D, kernel=(-2, -1))
class QuantDepthwiseConv2D(QuantizedLayer, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with a quantized kernel, whose channels are its input channels
    times the multiplier.

    Example:
        >>> layer = bmpq_tf.layers.QuantDepthwiseConv2D(3, depth_multiplier=2)
        >>> layer(images).shape, layer.kernels()[0][1].width
        (TensorShape([32, 6, 6, 2]), 8)
    """


@register(keras.layers.SeparableConv1D, depthwise_kernel=(-2, -1), pointwise_kernel=(-1,))
class QuantSeparableConv1D(QuantizedLayer, keras.layers.SeparableConv1D):
    """`keras.layers.SeparableConv1D` with two quantized kernels, each with a width of its own.

    Example:
        >>> layer = bmpq_tf.layers.QuantSeparableConv1D(3, 3, quantizer={"candidate_bits": (2, 4)})
        >>> layer(images[..., 0]).shape, len(layer.kernels())
        (TensorShape([32, 6, 3]), 2)
    """


@register(keras.layers.SeparableConv2D, depthwise_kernel=(-2, -1), pointwise_kernel=(-1,))
class QuantSeparableConv2D(QuantizedLayer, keras.layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` with two quantized kernels, each with a width of its own.

    Example:
        >>> layer = bmpq_tf.layers.QuantSeparableConv2D(3, 3, quantizer={"candidate_bits": (4, 8)})
        >>> layer(images).shape, [quantizer.width for kernel, quantizer in layer.kernels()]
        (TensorShape([32, 6, 6, 3]), [8, 8])
    """


@register(keras.layers.LSTMCell, kernel=(-1,), recurrent_kernel=(-1,))
class QuantLSTMCell(QuantizedLayer, keras.layers.LSTMCell):
    """`keras.layers.LSTMCell` with two quantized kernels, whose channels are each unit's gates.

    Example:
        >>> cell = bmpq_tf.layers.QuantLSTMCell(3, quantizer={"candidate_bits": (2, 4, 8)})
        >>> sequences = bmpq_tf.layers.QuantRNN(cell)(images[..., 0])
        >>> [tuple(kernel.shape) for kernel, quantizer in cell.kernels()]
        [(8, 12), (3, 12)]
    """


@register(keras.layers.GRUCell, kernel=(-1,), recurrent_kernel=(-1,))
class QuantGRUCell(QuantizedLayer, keras.layers.GRUCell):
    """`keras.layers.GRUCell` with two quantized kernels, whose channels are each unit's gates.

    Example:
        >>> cell = bmpq_tf.layers.QuantGRUCell(3, quantizer={"candidate_bits": (2, 4, 8)})
        >>> sequences = bmpq_tf.layers.QuantRNN(cell)(images[..., 0])
        >>> [tuple(kernel.shape) for kernel, quantizer in cell.kernels()]
        [(8, 9), (3, 9)]
    """


@register(keras.layers.SimpleRNNCell, kernel=(-1,), recurrent_kernel=(-1,))
class QuantSimpleRNNCell(QuantizedLayer, keras.layers.SimpleRNNCell):
    """`keras.layers.SimpleRNNCell` with two quantized kernels, whose channels are its units.

    Example:
        >>> cell = bmpq_tf.layers.QuantSimpleRNNCell(3, quantizer={"candidate_bits": (2, 4, 8)})
        >>> sequences = bmpq_tf.layers.QuantRNN(cell)(images[..., 0])
        >>> [tuple(kernel.shape) for kernel, quantizer in cell.kernels()]
        [(8, 3), (3, 3)]
    """
