"""Whether a constant of a converted model is a kernel, and what the converter has multiplied into
it.

Folding a BatchNorm multiplies each output channel of a convolution by its own factor: the integers
stay, the scale changes. A multiplication before a fully connected layer may be folded into its
columns, which destroys the grid unless it is divided out again. Both are products:
`constant[c, k] = row[c] * column[k] * S[c] * q[c, k]`, and that is what is solved for here.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.kernels import gates
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.model.kernels import KernelState

_BUILTIN = schema.BuiltinOperator
# Which operand an operator's weights are, and which of their axes has the channels.
_WEIGHTS = {
    _BUILTIN.CONV_2D: (1, 0),
    _BUILTIN.DEPTHWISE_CONV_2D: (1, -1),
    _BUILTIN.FULLY_CONNECTED: (1, 0),
    _BUILTIN.TRANSPOSE_CONV: (1, 0),
    _BUILTIN.BATCH_MATMUL: (1, -1),
    _BUILTIN.GATHER: (0, -1),
    _BUILTIN.EMBEDDING_LOOKUP: (1, 0),
}
# Where a factor of each input feature can be taken out again.
_OF_FEATURES = (_BUILTIN.FULLY_CONNECTED, _BUILTIN.BATCH_MATMUL)
# Folding rounds to float32 once or twice; a grid's neighbours are at least 1/255 apart.
_TOLERANCE = 2e-5
# What rounding leaves of a factor of one.
_UNTOUCHED = 4 * np.finfo(np.float32).eps


@dataclasses.dataclass(frozen=True)
class KernelIntegers:
    """A kernel as the trained model holds it.

    Attributes:
        path: its variable path.
        layer: the name of its layer.
        bits: its width.
        integers: int8 matrix, output channels first: `(channels, weights per channel)`.
        scales: float32, one for each channel.
        sizes: of the axes that a channel's weights had; without them they have one.
        cuts: the ways in which its layer may read it in blocks of channels: the sizes of each.
    """

    path: str
    layer: str
    bits: int
    integers: np.ndarray
    scales: np.ndarray
    sizes: tuple[int, ...] = ()
    cuts: tuple[tuple[int, ...], ...] = ()

    def has_values_of(self, other: "KernelIntegers") -> bool:
        """Whether both hold the same weights, so that one constant can be either."""
        return np.array_equal(self.integers, other.integers) and np.array_equal(
            self.scales, other.scales
        )

    def reordered(self) -> "Iterator[KernelIntegers]":
        """Yields the kernel with its channels' weights in every other order of their axes."""
        channels, *_ = self.integers.shape
        for order in list(itertools.permutations(range(1, len(self.sizes) + 1)))[1:]:
            integers = (
                self.integers.reshape(channels, *self.sizes)
                .transpose(0, *order)
                .reshape(channels, -1)
            )
            yield dataclasses.replace(
                self, integers=integers, sizes=tuple(self.sizes[axis - 1] for axis in order)
            )


@dataclasses.dataclass(frozen=True)
class Match:
    """A constant of the converted model that is a kernel.

    Attributes:
        kernel: which one.
        subgraph, tensor: where the constant is.
        channel_axis: the constant's axis of channels: mostly 0, for depthwise convolutions the
            last, for `Conv3DTranspose` the last but one.
        row: the factor of each channel; may be negative.
        column: the factor of each input feature, or `None` where all are 1.
        also: paths of other kernels of the same values, of which the converter keeps one; of zeros,
            where folding silenced them all.
    """

    kernel: KernelIntegers
    subgraph: int
    tensor: int
    channel_axis: int
    row: np.ndarray
    column: np.ndarray | None
    also: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether nothing was multiplied in."""
        return self.column is None and _close(self.row, np.ones_like(self.row))

    @property
    def is_telling(self) -> bool:
        """Whether only this kernel's integers fit.

        Factors alone explain any values where a channel or a feature has one weight.
        """
        channels, weights = self.kernel.integers.shape
        return weights > 1 and (self.column is None or channels > 1)

    def values(self, shape: Sequence[int]) -> np.ndarray:
        """Returns what the integers stand for in a constant of this shape, with the factors of
        channels and without those of features.
        """
        kernel, axis = self.kernel, self.channel_axis % len(shape)
        values = (self.row * kernel.scales)[:, None] * kernel.integers
        others = [size for number, size in enumerate(shape) if number != axis]
        return np.moveaxis(values.reshape(len(values), *others), 0, axis)


def kernel_integers(state: KernelState) -> KernelIntegers:
    """Returns a quantized kernel as the trained model holds it."""
    quantizer = state.quantized
    values = np.asarray(keras.ops.convert_to_numpy(state.variable), np.float32)
    integers = np.asarray(quantizer.integers(values)).astype(np.int8)
    scales = np.broadcast_to(np.asarray(quantizer.scale(values)), values.shape)
    return KernelIntegers(
        path=state.kernel.path,
        layer=state.layer.name,
        bits=quantizer.width,
        integers=channels_first(integers, quantizer.channel_axes),
        scales=channels_first(scales, quantizer.channel_axes)[:, 0].copy(),
        sizes=feature_sizes(values.shape, quantizer.channel_axes),
        cuts=gates.cuts(state.layer),
    )


def reads_as_weights(model, subgraph, operator, tensor: int, channel_axis: int) -> bool:
    """Whether a constant is the weights of an operator that reads it, with its channels on that
    operator's axis.
    """
    return channel_axis == _axis_read(model, subgraph, operator, tensor)


def _axis_read(model, subgraph, operator, tensor: int) -> int | None:
    """Which axis of a constant an operator takes for channels.

    `None` where it does not read it as weights.
    """
    operand, axis = _WEIGHTS.get(flatbuffer.builtin_of(model, operator), (None, 0))
    is_weights = operand is not None and operator.inputs[operand] == tensor
    return axis % len(subgraph.tensors[tensor].shape) if is_weights else None


def channels_first(values: np.ndarray, channel_axes: Sequence[int]) -> np.ndarray:
    """Returns a kernel as a matrix `(channels, weights per channel)`.

    Without channel axes there is one channel.
    """
    axes = tuple(axis % values.ndim for axis in channel_axes)
    moved = np.moveaxis(values, axes, range(len(axes)))
    return np.ascontiguousarray(moved.reshape(int(np.prod(moved.shape[: len(axes)])), -1))


def feature_sizes(shape: Sequence[int], channel_axes: Sequence[int]) -> tuple[int, ...]:
    """Returns the sizes of the axes that `channels_first` joins for each channel."""
    axes = {axis % len(shape) for axis in channel_axes}
    return tuple(int(size) for axis, size in enumerate(shape) if axis not in axes)


def possible_matches(
    model, kernels: Iterable[KernelIntegers], number: int, index: int, values: np.ndarray
) -> Iterator[Match]:
    """Yields every way in which a constant, a tensor of one of the subgraphs, can be one of the
    kernels, in their order.
    """
    subgraph = model.subgraphs[number]
    axes = _axes(model, subgraph, index)
    for kernel in kernels:
        if kernel.integers.size == values.size:
            yield from (
                match
                for match in _matches(values, axes, kernel, number, index)
                if _is_usable(model, subgraph, match)
            )


def _is_usable(model, subgraph, match: Match) -> bool:
    """Whether all that read the constant can do with a kernel there.

    With its factors, only where they read it as weights.
    """
    for position in flatbuffer.consumers(subgraph, match.tensor):
        operator = subgraph.operators[position]
        weights = reads_as_weights(model, subgraph, operator, match.tensor, match.channel_axis)
        features = weights and flatbuffer.builtin_of(model, operator) in _OF_FEATURES
        if not (match.is_plain or features or (weights and match.column is None)):
            return False
    return True


def _axes(model, subgraph, tensor: int) -> list[int]:
    """The axes that may be the channels'.

    With one channel, or equal sizes, several fit, and those that the readers take come first.
    """
    rank = len(subgraph.tensors[tensor].shape)
    read = [
        _axis_read(model, subgraph, subgraph.operators[position], tensor)
        for position in flatbuffer.consumers(subgraph, tensor)
    ]
    return list(
        dict.fromkeys(
            [*(axis for axis in read if axis is not None), 0, rank - 1, *range(rank - 2, 0, -1)]
        )
    )


def _matches(
    values: np.ndarray, axes: Iterable[int], kernel: KernelIntegers, subgraph: int, tensor: int
) -> Iterator[Match]:
    channels = len(kernel.scales)
    for axis in axes:
        if values.shape[axis] != channels:
            continue
        matrix = np.moveaxis(values, axis, 0).reshape(channels, -1)
        factors = _factors(matrix.astype(np.float64), kernel.integers, kernel.scales)
        if factors is not None:
            yield Match(kernel, subgraph, tensor, axis, *factors)


def _factors(
    matrix: np.ndarray, integers: np.ndarray, scales: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Solves `matrix = row * column * scales * integers`.

    `None` if that is not what the matrix is.
    """
    grid = integers * scales[:, None].astype(np.float64)
    used = integers != 0
    if not np.array_equal(used, matrix != 0):
        # A factor of exactly zero (a dead BatchNorm channel) leaves zeros where the integers are
        # not.
        channels, features = np.any(matrix, axis=1), np.any(matrix, axis=0)
        alive = used & channels[:, None] & features
        if not np.array_equal(alive, matrix != 0):
            return None
        if (used & channels[:, None] & ~features).any():
            found = _rank_one(matrix, np.where(alive, grid, 0.0), alive)
            return found and (np.where(channels, found[0], 0.0), np.where(features, found[1], 0.0))
    largest = np.abs(integers).argmax(axis=1)
    channels = np.arange(len(matrix))
    divisor = grid[channels, largest]
    row = np.divide(
        matrix[channels, largest], divisor, out=np.ones(len(matrix)), where=divisor != 0
    )
    if _close(row[:, None] * grid, matrix):
        # Where nothing was multiplied in, the trained scales themselves, to the last bit.
        return (np.ones_like(row) if np.abs(row - 1).max() <= _UNTOUCHED else row), None
    return _rank_one(matrix, grid, used)


def _rank_one(
    matrix: np.ndarray, grid: np.ndarray, used: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Spreads factors from channel to feature to channel along the weights that are not zero."""
    ratio = np.divide(matrix, grid, out=np.zeros_like(matrix), where=used)
    row, column = np.full(len(matrix), np.nan), np.full(matrix.shape[1], np.nan)
    while np.isnan(row).any():
        start = int(np.where(np.isnan(row), used.sum(axis=1), -1).argmax())
        row[start] = 1.0
        frontier = True
        while frontier:
            frontier = False
            for c in np.flatnonzero(~np.isnan(row)):
                new = used[c] & np.isnan(column)
                if new.any() and row[c]:
                    column[new] = ratio[c, new] / row[c]
                    frontier = True
            known = used & ~np.isnan(column) & (np.nan_to_num(column) != 0)
            for c in np.flatnonzero(np.isnan(row) & known.any(axis=1)):
                k = int(np.argmax(np.where(known[c], np.abs(grid[c]), -1)))
                row[c] = ratio[c, k] / column[k]
                frontier = True
    column = np.nan_to_num(column, nan=1.0)
    return (row, column) if _close(row[:, None] * column[None] * grid, matrix) else None


def _close(product: np.ndarray, matrix: np.ndarray) -> bool:
    size = np.maximum(np.abs(matrix), np.abs(product))
    return bool(np.all(np.abs(product - matrix) <= _TOLERANCE * size))
