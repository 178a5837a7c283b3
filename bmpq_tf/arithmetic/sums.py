"""Sums over the weights that share a channel: a kernel seen as a matrix with a column for each."""

import math
from collections.abc import Iterable, Sequence

import tensorflow as tf


def columns(shape: Iterable[int | None], axes: Sequence[int]) -> int | None:
    """Returns how many columns a tensor has whose `axes` are its rows.

    Args:
        shape: the tensor's.
        axes: those that are summed over, not negative.

    Returns:
        The number of channels where they are the last axes (as in all but transposed convolutions);
        `None` where they are not, where there is only one, or where the shape is open, empty or
        past 2^31.
    """
    sizes = [-1 if size is None else size for size in shape]
    # BiasAddGrad counts elements in int32.
    if min(sizes, default=1) < 1 or math.prod(sizes) > 2**31 - 1:
        return None
    summed = [axis for axis in axes if sizes[axis] > 1]
    kept = [axis for axis, size in enumerate(sizes) if size > 1 and axis not in summed]
    return (
        math.prod(sizes[axis] for axis in kept)
        if summed and kept and max(summed) < min(kept)
        else None
    )


def by_channel(values: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """Returns the sums over `axes` as a vector, the other axes' entries in the tensor's order.

    Float32 up to the order of additions.
    """
    channels = columns(values.shape, axes)
    if channels is None:
        return tf.reshape(tf.reduce_sum(values, axes), [-1])
    # The gradient of a bias is this very sum; its kernel is three times as fast as reduce_sum's.
    rows = (
        values
        if values.shape[-1] == channels and len(values.shape) > 1
        else tf.reshape(values, [-1, channels])
    )
    return tf.raw_ops.BiasAddGrad(out_backprop=rows)
