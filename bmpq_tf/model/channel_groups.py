"""Which channels of a model stand or fall together.

A channel is made by a kernel's output, goes through layers that take each channel by itself, and is
read by other kernels. What a sum adds up has the same channels.
"""

import collections
import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.layers.activations import QuantIdentity, QuantReLU
from bmpq_tf.layers.base import RELU_LIMITS
from bmpq_tf.layers.serialization import is_of_user
from bmpq_tf.model import keras_graph

Layer = keras.layers.Layer
_L = keras.layers
# What makes channels of its own and reads all of those before.
_MAKERS = (_L.Dense, _L.Conv1D, _L.Conv2D, _L.Conv3D)
DEPTHWISE = (_L.DepthwiseConv1D, _L.DepthwiseConv2D)
_EACH_BY_ITSELF = (
    *(_L.ReLU, _L.LeakyReLU, _L.ELU, _L.Activation, _L.Identity, QuantReLU, QuantIdentity),
    *(_L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.SpatialDropout3D, _L.GaussianNoise),
    *(_L.MaxPooling1D, _L.MaxPooling2D, _L.MaxPooling3D),
    *(_L.AveragePooling1D, _L.AveragePooling2D, _L.AveragePooling3D),
    *(_L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D, _L.GlobalMaxPooling3D),
    *(_L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.GlobalAveragePooling3D),
    *(_L.ZeroPadding1D, _L.ZeroPadding2D, _L.ZeroPadding3D),
    *(_L.Cropping1D, _L.Cropping2D, _L.Cropping3D),
    *(_L.UpSampling1D, _L.UpSampling2D, _L.UpSampling3D),
)
_RELUS = (_L.ReLU, _L.LeakyReLU, _L.ELU)
_SUMS = (_L.Add, _L.Subtract, _L.Multiply, _L.Average, _L.Maximum, _L.Minimum)
# They weigh channels against each other.
_ACROSS = ("softmax", "log_softmax", "glu", "sparsemax")


@dataclasses.dataclass
class ChannelGroup:
    """Channels that are dropped together, or not at all.

    Attributes:
        size: how many channels.
        makers: the layers whose outputs they are.
        readers: by the `id` of each layer that reads them, how many values of each channel it
            reads: 1, or the positions that `Flatten` joined.
        stays: why none can be dropped, or empty.
    """

    size: int
    makers: list[Layer] = dataclasses.field(default_factory=list)
    readers: dict[int, int] = dataclasses.field(default_factory=dict)
    stays: str = ""

    @property
    def name(self) -> str:
        """The names of the layers that make the channels."""
        return " + ".join(layer.name for layer in self.makers)


@dataclasses.dataclass
class ChannelGroups:
    """The groups of a model.

    Attributes:
        groups: in the model's order.
        made: by the `id` of a layer, the number of the group that it makes, or has weights for each
            channel of.
        read: by the `id` of a layer, the number of the group that it reads.
    """

    groups: list[ChannelGroup]
    made: dict[int, int]
    read: dict[int, int]


def channel_groups(model: keras.Model) -> ChannelGroups:
    """Finds the groups of a functional or sequential model, and of such models inside it."""
    walk = _Walk(collections.Counter(_called(model)))
    walk.go_through(model, "the model")
    return walk.result()


def _called(model: keras.Model) -> Iterator[int]:
    """The `id` of the operation of each call, in models inside too."""
    for node in keras_compat.nodes_in_order(model):
        yield id(node.operation)
        if keras_graph.is_graph(node.operation):
            yield from _called(node.operation)


class _Walk:
    """The walk through the graph: the group of each tensor, joined where channels are the same."""

    def __init__(self, calls: Mapping[int, int]):
        self._calls = calls
        self._groups: list[ChannelGroup] = []
        self._joined: list[int] = []
        # By tensor: its group, and how many values of each channel lie side by side.
        self._of: dict[int, tuple[int, int]] = {}
        self._made: dict[int, int] = {}
        self._read: dict[int, int] = {}

    def go_through(self, model: keras.Model, name: str) -> None:
        """Goes through a model, whose inputs and outputs keep their channels."""
        for tensor in model.inputs:
            self.begin(tensor, stays=f"they are an input of {name}")
        for node in keras_compat.nodes_in_order(model):
            self.pass_through(node)
        self.hold(model.outputs, f"they are an output of {name}")

    def begin(self, tensor, *, maker: Layer | None = None, stays: str = "") -> None:
        """Begins a group with a tensor's channels."""
        size = tensor.shape[-1] if len(tensor.shape) else None
        stays = stays if size is not None else stays or "their number is not known"
        self._groups.append(ChannelGroup(size or 0, [maker] if maker else [], stays=stays))
        self._joined.append(len(self._joined))
        self._of[id(tensor)] = len(self._groups) - 1, 1
        if maker is not None:
            self._made[id(maker)] = len(self._groups) - 1

    def pass_through(self, node) -> None:
        """Tells the groups of what a call gives."""
        layer = node.operation
        given = [tensor for tensor in node.input_tensors if id(tensor) in self._of]
        results = node.output_tensors
        if self._calls[id(layer)] > 1:
            self._end(given, results, f"'{layer.name}' is called more than once")
        elif keras_graph.is_graph(layer):
            self.hold(given, f"they are an input of model '{layer.name}'")
            self.go_through(layer, f"model '{layer.name}'")
            self._end([], results, f"they are an output of model '{layer.name}'")
        elif len(results) != 1 or len(given) != len(node.input_tensors) or is_of_user(layer):
            self._end(given, results, self._unknown(layer))
        elif isinstance(layer, _MAKERS):
            self._make(layer, given[0], results[0])
        elif _takes_each(layer):
            self._of[id(results[0])] = group, repeats = self._of[id(given[0])]
            has_weights = isinstance(layer, (_L.BatchNormalization, *DEPTHWISE))
            if has_weights and repeats > 1:
                self.hold(given, f"'{layer.name}' has weights for each of their positions")
            elif has_weights:
                self._made[id(layer)] = group
        elif isinstance(layer, _L.Flatten) and _is_channels_last(layer):
            group, repeats = self._of[id(given[0])]
            positions = results[0].shape[-1]
            if positions is None or not self._size(group):
                self._end(given, results, f"'{layer.name}' joins an unknown number of positions")
            else:
                self._of[id(results[0])] = group, positions // self._size(group)
        elif isinstance(layer, _SUMS):
            self._join(layer, given, results)
        else:
            self._end(given, results, self._unknown(layer))

    def hold(self, tensors: Iterable, why: str) -> None:
        """Notes why the channels of these tensors stay."""
        for tensor in tensors:
            if id(tensor) in self._of:
                group = self._groups[self._root(self._of[id(tensor)][0])]
                group.stays = group.stays or why

    def result(self) -> ChannelGroups:
        """Returns the groups that some layer makes."""
        roots = [number for number in range(len(self._groups)) if self._root(number) == number]
        kept = [number for number in roots if self._groups[number].makers]
        place = {number: index for index, number in enumerate(kept)}
        for number in kept:
            group = self._groups[number]
            group.stays = group.stays or ("" if group.readers else "no kernel reads them")

        def numbered(found: dict[int, int]) -> dict[int, int]:
            of = {name: self._root(number) for name, number in found.items()}
            return {name: place[number] for name, number in of.items() if number in place}

        return ChannelGroups(
            [self._groups[number] for number in kept], numbered(self._made), numbered(self._read)
        )

    def _make(self, layer, given, result) -> None:
        if not _is_channels_last(layer):
            self._end([given], [result], f"'{layer.name}' has them before the positions")
            return
        if getattr(layer, "groups", 1) != 1:
            why = f"'{layer.name}' reads them in groups"
            self.hold([given], why)
            self.begin(result, maker=layer, stays=why)
            return
        group, repeats = self._of[id(given)]
        self._groups[self._root(group)].readers[id(layer)] = repeats
        self._read[id(layer)] = group
        self.begin(result, maker=layer, stays=_across(layer))

    def _join(self, layer, given: Sequence, results) -> None:
        (result,) = results
        found = [self._of[id(tensor)] for tensor in given]
        sizes = {self._size(group) for group, _ in found}
        if len(sizes) > 1 or len({repeats for _, repeats in found}) > 1:
            self._end(given, results, f"'{layer.name}' broadcasts them")
            return
        first, *others = (self._root(group) for group, _ in found)
        for other in others:
            if self._root(other) == first:
                continue
            ours, theirs = self._groups[first], self._groups[other]
            ours.makers += theirs.makers
            ours.readers |= theirs.readers
            ours.stays = ours.stays or theirs.stays
            self._joined[other] = first
        self._of[id(result)] = first, found[0][1]

    def _end(self, given, results, why: str) -> None:
        self.hold(given, why)
        for tensor in results:
            self.begin(tensor, stays=why)

    def _root(self, number: int) -> int:
        while self._joined[number] != number:
            number = self._joined[number]
        return number

    def _size(self, number: int) -> int:
        return self._groups[self._root(number)].size

    def _unknown(self, layer) -> str:
        return f"'{layer.name}' ({type(layer).__name__}) may mix them"


def _takes_each(layer) -> bool:
    if isinstance(layer, _L.BatchNormalization):
        last = layer.input_spec.ndim - 1 if layer.input_spec else -1
        return layer.axis in (-1, last)
    if isinstance(layer, DEPTHWISE):
        return layer.depth_multiplier == 1 and _is_channels_last(layer) and not _across(layer)
    if isinstance(layer, _L.Activation):
        return not _across(layer)
    return isinstance(layer, _EACH_BY_ITSELF) and _is_channels_last(layer)


def _across(layer) -> str:
    """Why a layer's own activation keeps the channels, or empty."""
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", type(activation).__name__)
    if activation is None or activation in RELU_LIMITS or isinstance(activation, _RELUS):
        return ""
    if not inspect.isfunction(activation) or not keras_compat.is_from_keras(activation):
        return f"the {name} of '{layer.name}' may weigh them against each other"
    return f"the {name} of '{layer.name}' weighs them against each other" * (name in _ACROSS)


def _is_channels_last(layer) -> bool:
    return getattr(layer, "data_format", "channels_last") in ("channels_last", None)
