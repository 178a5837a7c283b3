"""Kernels that a recurrent cell reads in blocks of channels, one for each of its gates or for some
of them, so that the converted model has a constant for each block.
"""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import keras
import numpy as np

if TYPE_CHECKING:
    from bmpq_tf.export.kernels.match import KernelIntegers


def cuts(layer: keras.layers.Layer) -> tuple[tuple[int, ...], ...]:
    """Returns the ways in which a layer may cut its kernels: the channels of each block.

    A GRU that resets before it multiplies has one for two gates and one for the third.
    """
    if isinstance(layer, keras.layers.GRUCell):
        return (2 * layer.units, layer.units), (layer.units,) * 3
    return ((layer.units,) * 4,) if isinstance(layer, keras.layers.LSTMCell) else ()


def blocks(kernel: "KernelIntegers") -> "Iterator[list[KernelIntegers]]":
    """Yields a kernel as its blocks, for each way in which its layer may cut it."""
    for cut in kernel.cuts:
        ends = np.cumsum(cut)[:-1]
        parts = zip(np.split(kernel.integers, ends), np.split(kernel.scales, ends), strict=True)
        yield [
            dataclasses.replace(kernel, integers=integers, scales=scales, cuts=())
            for integers, scales in parts
        ]
