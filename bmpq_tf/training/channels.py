"""Channels that a budget has no room for leave the model for good."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import keras
import numpy as np

from bmpq_tf.allocation.budget import Budget, InfeasibleBudgetError
from bmpq_tf.allocation.channel_program import ChannelKernel, least_bits, solve_channels
from bmpq_tf.allocation.sensitivity import OBJECTIVES, weight_costs
from bmpq_tf.arguments import check_known
from bmpq_tf.conversion.cloning import clone
from bmpq_tf.conversion.supported_models import check_quantized
from bmpq_tf.model import keras_graph
from bmpq_tf.model.channel_groups import (
    DEPTHWISE,
    ChannelGroup,
    ChannelGroups,
    channel_groups,
)
from bmpq_tf.model.kernels import KernelState, model_kernels
from bmpq_tf.training.allocator import assign_bits, measured_kernels
from bmpq_tf.training.decision_options import checked_arguments

Layer = keras.layers.Layer
# A group may keep so many parts of its channels.
_PARTS = 8
# Of mini-batches; they begin anew.
_SUMS = ("gradient_sums", "uses_seen", "weight_gradient_abs_sum")


def drop_channels(
    model: keras.Model,
    budget: "str | float | Budget",
    sensitivity: str = "squared",
    *,
    time_limit: float = 60.0,
    verbose: int = 1,
) -> keras.Model:
    """Decides which channels a budget has room for, and returns the smaller model.

    One integer program decides the channels and the widths of all kernels. A channel of 0 bits
    costs what its weights cost at any width: their gradients times the error, which is all of them.
    Of every group of channels that must go together (`METHOD.md`, "Channels") as many eighths are
    kept as the program says, the most sensitive ones. The returned model has fewer weights and
    takes less arithmetic, in Keras and in every kind of file. Train it on: it lost what it had
    learned there.

    Args:
        model: a functional or sequential model from `quantize_model` that was trained a little, so
            that its bit gradients are known. It is left as it is.
        budget: of parameter bits: `"15 kB"`, a compression (of the float weights that `model` has,
            those of dropped channels included) or a mean width over the weights of `model`. Give
            bytes to the callback afterwards, where a compression is of the smaller model.
        sensitivity: `"squared"`, `"first_order"` or `"joint"`, as `BMPQCallback` takes it. A weight
            that is dropped has an error of its whole size, which first order takes too lightly
            beside many small ones.
        time_limit: seconds for the solver.
        verbose: 1 prints a line.

    Returns:
        The smaller model, not compiled, with the widths that were decided.

    Raises:
        InfeasibleBudgetError: the narrowest widths of the fewest channels do not meet the budget.
        AllocationError: the solver found nothing in time.
        ValueError: a limit is not of parameter bits, the sensitivity or the time is not known, no
            gradients were seen, or no channel can be dropped; the message says of each group why.

    Example:
        >>> model.fit(images, labels, verbose=0).epoch
        [0]
        >>> smaller = bmpq_tf.drop_channels(model, "20x", verbose=0)
        >>> smaller.count_params() < model.count_params()
        True
    """
    check_quantized(model)
    _, time_limit = checked_arguments(0.0, time_limit)
    limit = _checked(model, budget, sensitivity)
    states, measured = measured_kernels(model_kernels(model), sensitivity)
    groups = _with_gradients(channel_groups(model), states)
    if all(group.stays for group in groups.groups):
        raise ValueError(
            f"No channel of this model can be dropped. Received: {_staying(groups)}. Give "
            "BMPQCallback the budget, which chooses widths alone."
        )
    bound = limit.bits([state.kernel for state in states])
    assert bound is not None

    def costs_of(path: str, bits: int) -> np.ndarray:
        return weight_costs(measured[path], bits, sensitivity)

    ranked = [_Ranked.of(group, states, costs_of) for group in groups.groups]
    kernels = [_in_program(state, groups, ranked, costs_of) for state in states]
    if (least := least_bits(kernels)) > bound:
        raise InfeasibleBudgetError(
            f"The budget cannot be met. Received: budget={budget!r}, which allows {bound:,} "
            f"parameter bits. With an eighth of the channels they are {least:,} at the least"
            f"{_holding_up(groups)}. Give narrower candidates, or loosen the budget."
        )
    found = solve_channels(kernels, [one.costs for one in ranked], bound, time_limit=time_limit)
    kept = [one.kept(level) for one, level in zip(ranked, found.levels, strict=True)]
    smaller = _without(model, groups, kept)
    # A copy of the same layers has the same kernels, whose paths may differ.
    assign_bits(
        smaller,
        {
            ours.kernel.path: found.bits[theirs.kernel.path]
            for ours, theirs in zip(model_kernels(smaller), states, strict=True)
        },
    )
    if verbose:
        print(f"BMPQ {_told(groups, kept)}", flush=True)
    return smaller


def _checked(model: keras.Model, budget, sensitivity: str) -> Budget:
    if not keras_graph.is_graph(model):
        raise ValueError(
            "Channels are found in the graph of a functional or sequential model. Received: a "
            f"{type(model).__name__}."
        )
    check_known("sensitivity", sensitivity, OBJECTIVES)
    parsed = Budget.parse(budget)
    others = set(parsed.to_dict()) - {"compression", "average_bits", "weight_bytes"}
    if others:
        raise ValueError(
            "Channels are dropped under a budget of parameter bits, such as '15 kB' or '20x'. "
            f"Received: budget={budget!r}. Drop channels first, and give the callback the rest."
        )
    return parsed


def _with_gradients(groups: ChannelGroups, states: Sequence[KernelState]) -> ChannelGroups:
    """The groups, with those that stay for want of gradients."""
    seen = {
        id(state.layer)
        for state in states
        if state.quantizer is not None
        and state.variable.trainable
        and state.quantizer.accumulated().uses_finite > 0
    }
    return dataclasses.replace(
        groups,
        groups=[
            dataclasses.replace(
                group,
                stays=group.stays
                or next(
                    (
                        f"'{layer.name}' is float or frozen, or no gradient reached it"
                        for layer in group.makers
                        if id(layer) not in seen
                    ),
                    "",
                ),
            )
            for group in groups.groups
        ],
    )


# What each weight of a kernel, by its path, costs at a width.
_CostsOf = Callable[[str, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Ranked:
    """A group's channels in order, the most sensitive first.

    Attributes:
        order: their numbers.
        counts: how many of them may be kept, ascending; all alone where they stay.
        costs: what it costs to keep so many only.
    """

    order: np.ndarray
    counts: tuple[int, ...]
    costs: tuple[float, ...]

    @classmethod
    def of(
        cls, group: ChannelGroup, states: Sequence[KernelState], costs_of: _CostsOf
    ) -> "_Ranked":
        if group.stays:
            return cls(np.arange(group.size), (group.size,), (0.0,))
        makers = {id(layer) for layer in group.makers}
        costs = np.zeros(group.size)
        for state in states:
            if id(state.layer) in makers:
                of_weights = costs_of(state.kernel.path, 0)
                costs += of_weights.reshape(-1, group.size).sum(0)
        order = np.argsort(-costs, kind="stable")
        counts = sorted({math.ceil(group.size * part / _PARTS) for part in range(1, _PARTS + 1)})
        left_out = costs.sum() - np.cumsum(costs[order])
        return cls(order, tuple(counts), tuple(max(left_out[count - 1], 0.0) for count in counts))

    def by_level(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Sums along an axis of channels over those that each level keeps."""
        sums = values.take(self.order, axis).cumsum(axis)
        return sums.take(np.array(self.counts) - 1, axis)

    def kept(self, level: int) -> np.ndarray:
        """The channels of a level, ascending."""
        return np.sort(self.order[: self.counts[level]])


def _in_program(
    state: KernelState,
    groups: ChannelGroups,
    ranked: Sequence[_Ranked],
    costs_of: _CostsOf,
) -> ChannelKernel:
    """A kernel's costs and weights at each width and level."""
    read, made = groups.read.get(id(state.layer)), groups.made.get(id(state.layer))
    shape, depthwise = tuple(state.variable.shape), isinstance(state.layer, DEPTHWISE)
    repeats = groups.groups[read].readers[id(state.layer)] if read is not None else 1

    def by_level(of_weights: np.ndarray) -> np.ndarray:
        """Sums over the channels that each level keeps; without a group, over all."""
        if depthwise:
            matrix = of_weights.reshape(1, -1, shape[-2]).sum(1)
        elif read is None:
            matrix = of_weights.reshape(1, -1, shape[-1]).sum(1)
        else:
            matrix = of_weights.reshape(-1, repeats, groups.groups[read].size, shape[-1])
            matrix = ranked[read].by_level(matrix.sum((0, 1)), 0)
        if made is None:
            return matrix.sum(1, keepdims=True)
        return ranked[made].by_level(matrix, 1)

    candidates = state.kernel.candidates
    weights = by_level(np.ones(shape))
    costs = np.zeros((len(candidates), *weights.shape))
    if len(candidates) > 1:
        each = [by_level(costs_of(state.kernel.path, bits)) for bits in candidates]
        costs = np.maximum.accumulate(np.stack(each)[::-1])[::-1]
    return ChannelKernel(state.kernel.path, candidates, read, made, costs, weights)


def _without(model: keras.Model, groups: ChannelGroups, kept: Sequence[np.ndarray]) -> keras.Model:
    """A copy of the model with these channels alone."""

    def twin(layer: Layer, config: dict) -> Layer | None:
        group = groups.made.get(id(layer))
        size = next((name for name in ("units", "filters") if name in config), None)
        if group is None or size is None:
            return None
        return type(layer).from_config({**config, size: len(kept[group])})

    def carried(layer: Layer, value: keras.Variable, variable: keras.Variable) -> np.ndarray:
        if value.name in _SUMS:
            return np.zeros(variable.shape)
        values = np.asarray(value)
        read = groups.read.get(id(layer))
        made = groups.made.get(id(layer))
        for axis, (size, new) in enumerate(zip(values.shape, variable.shape, strict=True)):
            if size == new:
                continue
            if read is not None and axis == values.ndim - 2:
                group = groups.groups[read]
                positions = np.arange(group.readers[id(layer)])[:, None] * group.size
                values = values.take((positions + kept[read]).ravel(), axis)
            elif made is not None:
                values = values.take(kept[made], axis)
        return values

    return clone(model, twin, carried=carried)


def _holding_up(groups: ChannelGroups) -> str:
    return f", because {_staying(groups)}" if any(one.stays for one in groups.groups) else ""


def _staying(groups: ChannelGroups) -> str:
    staying = [f"those of '{one.name}' stay: {one.stays}" for one in groups.groups if one.stays]
    return "; ".join(staying) or "a model without Dense and Conv1D to Conv3D, which make them"


def _told(groups: ChannelGroups, kept: Sequence[np.ndarray]) -> str:
    changed = [
        f"{group.name} {group.size} to {len(one)}"
        for group, one in zip(groups.groups, kept, strict=True)
        if len(one) < group.size
    ]
    return f"dropped channels: {', '.join(changed)}" if changed else "dropped no channel"
