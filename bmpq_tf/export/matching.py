"""Finds each kernel among a converted model's constants, and what the converter has multiplied into it.

Folding a BatchNorm multiplies each output channel of a convolution by its own factor: the integers stay, the scale changes. A
multiplication before a fully connected layer may be folded into its columns, which destroys the grid unless it is divided
out again. Both are products: `constant[c, k] = row[c] * column[k] * S[c] * q[c, k]`, and that is what is solved for here.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from bmpq_tf.export import graph_file, origin

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
    """

    path: str
    layer: str
    bits: int
    integers: np.ndarray
    scales: np.ndarray
    sizes: tuple[int, ...] = ()

    def has_values_of(self, other: "KernelIntegers") -> bool:
        """Whether both hold the same weights, so that one constant can be either."""
        return np.array_equal(self.integers, other.integers) and np.array_equal(self.scales, other.scales)

    def reordered(self) -> "Iterator[KernelIntegers]":
        """Yields the kernel with its channels' weights in every other order of their axes."""
        channels, *_ = self.integers.shape
        for order in list(itertools.permutations(range(1, len(self.sizes) + 1)))[1:]:
            integers = self.integers.reshape(channels, *self.sizes).transpose(0, *order).reshape(channels, -1)
            yield dataclasses.replace(self, integers=integers, sizes=tuple(self.sizes[axis - 1] for axis in order))


@dataclasses.dataclass(frozen=True)
class Match:
    """A constant of the converted model that is a kernel.

    Attributes:
        kernel: which one.
        subgraph, tensor: where the constant is.
        channel_axis: the constant's axis of channels: mostly 0, for depthwise convolutions the last, for `Conv3DTranspose` the last but one.
        row: the factor of each channel; may be negative.
        column: the factor of each input feature, or `None` where all are 1.
        also: paths of other kernels of the same values, of which the converter keeps one; of zeros, where folding silenced them all.
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
        """Whether only this kernel's integers fit; factors alone explain any values where a channel or a feature has one weight."""
        channels, weights = self.kernel.integers.shape
        return weights > 1 and (self.column is None or channels > 1)


def reads_as_weights(model, subgraph, operator, tensor: int, channel_axis: int) -> bool:
    """Whether a constant is the weights of an operator that reads it, with its channels on that operator's axis."""
    return channel_axis == _axis_read(model, subgraph, operator, tensor)


def _axis_read(model, subgraph, operator, tensor: int) -> int | None:
    """Which axis of a constant an operator takes for channels; `None` where it does not read it as weights."""
    operand, axis = _WEIGHTS.get(graph_file.builtin_of(model, operator), (None, 0))
    is_weights = operand is not None and operator.inputs[operand] == tensor
    return axis % len(subgraph.tensors[tensor].shape) if is_weights else None


def channels_first(values: np.ndarray, channel_axes: Sequence[int]) -> np.ndarray:
    """Returns a kernel as a matrix `(channels, weights per channel)`; without channel axes the last one is taken."""
    axes = tuple(axis % values.ndim for axis in (channel_axes or (-1,)))
    moved = np.moveaxis(values, axes, range(len(axes)))
    return np.ascontiguousarray(moved.reshape(int(np.prod(moved.shape[: len(axes)])), -1))


def feature_sizes(shape: Sequence[int], channel_axes: Sequence[int]) -> tuple[int, ...]:
    """Returns the sizes of the axes that `channels_first` joins for each channel."""
    axes = {axis % len(shape) for axis in (channel_axes or (-1,))}
    return tuple(int(size) for axis, size in enumerate(shape) if axis not in axes)


def find_kernels(model, kernels: Sequence[KernelIntegers]) -> list[Match]:
    """Returns every float constant that is one of the kernels; a shared layer's kernel may be found more than once."""
    matches: list[Match] = []
    found: set[str] = set()
    zeros, unknown = [], []
    for number, index, values in _constants(model):
        if not values.any():
            zeros.append((number, index, values))
            continue
        # Two kernels with the same integers fit either place; prefer one not found yet, then the one of the right name.
        near = _nearness(kernels, graph_file.tensor_name(model.subgraphs[number].tensors[index]))
        ordered = sorted(kernels, key=lambda kernel: (kernel.path in found, -near[kernel.path]))
        if match := _best(_possible(model, ordered, number, index, values)):
            matches.append(match)
            found.add(match.kernel.path)
        else:
            unknown.append((number, index, values))
    # An einsum may take the axes that it sums over in the order of its other operand.
    turned = [turned for kernel in kernels if kernel.path not in found for turned in kernel.reordered()]
    unexplained = set()
    for number, index, values in unknown:
        if match := _best(_possible(model, turned, number, index, values)):
            matches.append(match)
            found.add(match.kernel.path)
        else:
            unexplained.add(values.size)
    matches += _of_zeros(model, kernels, zeros, found, unexplained)
    return [dataclasses.replace(match, also=match.also + _equals(match, kernels, found)) for match in matches]


def _constants(model) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields subgraph, tensor and values of each float constant that is read and has two axes or more."""
    for number, subgraph in enumerate(model.subgraphs):
        for index, tensor in enumerate(subgraph.tensors):
            if tensor.type == graph_file.FLOAT32 and tensor.shape is not None and len(tensor.shape) >= 2 and graph_file.consumers(subgraph, index):
                values = graph_file.constant(model, tensor)
                if values is not None:
                    yield number, index, values


def _nearness(kernels: Sequence[KernelIntegers], name: str) -> dict[str, int]:
    """Returns by path how many parts of a kernel's path are scopes on a tensor's name; 0 where its layer is none of them."""
    known = {kernel.path: {kernel.layer, *kernel.path.split("/")[:-1]} for kernel in kernels}
    scopes = origin.scopes(name, set().union(*known.values()))
    return {kernel.path: len(known[kernel.path] & scopes) * (kernel.layer in scopes) for kernel in kernels}


def _equals(match: Match, kernels: Sequence[KernelIntegers], found: set[str]) -> tuple[str, ...]:
    return tuple(kernel.path for kernel in kernels if kernel.path not in found and match.kernel.has_values_of(kernel))


def _of_zeros(model, kernels: Sequence[KernelIntegers], zeros, found: set[str], unexplained: set[int]) -> list[Match]:
    """Matches constants of nothing but zeros, which any kernel of their size fits that is zero itself or that folding silenced.

    Each is of the kernel in whose scope it lies, or of those in whose scopes it is read: equal constants are one. `found` is added to.
    """
    placed: list[tuple[dict[str, Match], list[KernelIntegers]]] = []
    for number, index, values in zeros:
        subgraph, fits = model.subgraphs[number], {}
        for match in _possible(model, kernels, number, index, values):
            fits.setdefault(match.kernel.path, match)
        fitting = [kernel for kernel in kernels if kernel.path in fits]
        results = [int(result) for position in graph_file.consumers(subgraph, index) for result in subgraph.operators[position].outputs]
        own = _nearness(kernels, graph_file.tensor_name(subgraph.tensors[index]))
        read = _nearness(kernels, ";".join(graph_file.tensor_name(subgraph.tensors[result]) for result in results))
        here = sorted((kernel for kernel in fitting if own[kernel.path]), key=lambda kernel: (kernel.path in found, -own[kernel.path]))[:1]
        here = here or [kernel for kernel in fitting if read[kernel.path] and kernel.path not in found]
        found.update(kernel.path for kernel in here)
        placed.append((fits, here))
    for kernel in kernels:
        # A constant of its size that no kernel explains may be this one, changed in a way that is not known.
        lost = kernel.path not in found and not (kernel.integers.any() and kernel.integers.size in unexplained)
        homes = [here for fits, here in placed if kernel.path in fits] if lost else []
        if homes:
            min(homes, key=bool).append(kernel)
            found.add(kernel.path)
    return [_match_of_zeros(fits, here) for fits, here in placed if here]


def _match_of_zeros(fits: dict[str, Match], here: list[KernelIntegers]) -> Match:
    """Several kernels share their zeros, not their integers, in the width of the widest."""
    kernel, *others = sorted(here, key=lambda kernel: -kernel.bits)
    match, also = fits[kernel.path], tuple(other.path for other in others)
    if all(kernel.has_values_of(other) for other in others):
        return dataclasses.replace(match, also=also)
    none = dataclasses.replace(kernel, integers=np.zeros_like(kernel.integers))
    return dataclasses.replace(match, kernel=none, row=np.ones(len(none.scales)), also=also)


def _possible(model, kernels: Iterable[KernelIntegers], number: int, index: int, values: np.ndarray) -> Iterator[Match]:
    subgraph = model.subgraphs[number]
    axes = _axes(model, subgraph, index)
    for kernel in kernels:
        if kernel.integers.size == values.size:
            yield from (match for match in _matches(values, axes, kernel, number, index) if _is_usable(model, subgraph, match))


def _best(possible: Iterable[Match]) -> Match | None:
    vague = []
    for match in possible:
        if match.is_telling:
            return match
        vague.append(match)
    return min(vague, key=lambda match: not match.is_plain, default=None)


def _is_usable(model, subgraph, match: Match) -> bool:
    """Whether all that read the constant can do with a kernel there: with its factors, only where they read it as weights."""
    for position in graph_file.consumers(subgraph, match.tensor):
        operator = subgraph.operators[position]
        weights = reads_as_weights(model, subgraph, operator, match.tensor, match.channel_axis)
        features = weights and graph_file.builtin_of(model, operator) in _OF_FEATURES
        if not (match.is_plain or features or (weights and match.column is None)):
            return False
    return True


def _axes(model, subgraph, tensor: int) -> list[int]:
    """The axes that may be the channels': with one channel, or equal sizes, several fit, and those that the readers take come first."""
    rank = len(subgraph.tensors[tensor].shape)
    read = [_axis_read(model, subgraph, subgraph.operators[position], tensor) for position in graph_file.consumers(subgraph, tensor)]
    return list(dict.fromkeys([*(axis for axis in read if axis is not None), 0, rank - 1, *range(rank - 2, 0, -1)]))


def _matches(values: np.ndarray, axes: Iterable[int], kernel: KernelIntegers, subgraph: int, tensor: int) -> Iterator[Match]:
    channels = len(kernel.scales)
    for axis in axes:
        if values.shape[axis] != channels:
            continue
        matrix = np.moveaxis(values, axis, 0).reshape(channels, -1)
        factors = _factors(matrix.astype(np.float64), kernel.integers, kernel.scales)
        if factors is not None:
            yield Match(kernel, subgraph, tensor, axis, *factors)


def _factors(matrix: np.ndarray, integers: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Solves `matrix = row * column * scales * integers`; `None` if that is not what the matrix is."""
    grid = integers * scales[:, None].astype(np.float64)
    used = integers != 0
    if not np.array_equal(used, matrix != 0):
        # A factor of exactly zero (a dead BatchNorm channel) leaves zeros where the integers are not.
        channels, features = matrix.any(axis=1), matrix.any(axis=0)
        alive = used & channels[:, None] & features
        if not np.array_equal(alive, matrix != 0):
            return None
        if (used & channels[:, None] & ~features).any():
            found = _rank_one(matrix, np.where(alive, grid, 0.0), alive)
            return found and (np.where(channels, found[0], 0.0), np.where(features, found[1], 0.0))
    largest = np.abs(integers).argmax(axis=1)
    channels = np.arange(len(matrix))
    divisor = grid[channels, largest]
    row = np.divide(matrix[channels, largest], divisor, out=np.ones(len(matrix)), where=divisor != 0)
    if _close(row[:, None] * grid, matrix):
        return row, None
    return _rank_one(matrix, grid, used)


def _rank_one(matrix: np.ndarray, grid: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
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
