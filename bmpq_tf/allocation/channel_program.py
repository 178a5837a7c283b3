"""Channels and widths decided together: an integer program over the kernels of a model and the
channels that they make and read (METHOD.md, "Channels").

A kernel's cost and size depend on its width and on how many channels it makes and reads, so a
choice is all three. Choices of kernels that share channels must agree.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import mip
import numpy as np

from bmpq_tf.allocation.solver import AllocationError

_xsum: Any = mip.xsum


@dataclasses.dataclass(frozen=True)
class ChannelKernel:
    """A kernel of the program.

    Attributes:
        path: its variable path.
        candidates: the widths it may have, ascending.
        read, made: the numbers of the groups whose channels it reads and makes; `None` where all
            of them stay. A depthwise kernel makes what it reads, and has `read` `None`.
        costs: of each width, level of what it reads, and level of what it makes: float64 `(widths,
            read levels, made levels)`.
        weights: how many it has then, `(read levels, made levels)`.
    """

    path: str
    candidates: tuple[int, ...]
    read: int | None
    made: int | None
    costs: np.ndarray
    weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class ChannelSolution:
    """What was decided.

    Attributes:
        levels: of each group, which of its levels it keeps.
        bits: the width of each kernel, by path.
        objective: the sum of the costs.
        status: `"optimal"` if proven, `"feasible"` if the time ran out first.
    """

    levels: tuple[int, ...]
    bits: dict[str, int]
    objective: float
    status: str


def least_bits(kernels: Sequence[ChannelKernel]) -> int:
    """Returns the fewest parameter bits that there can be: the narrowest widths, the fewest
    channels.
    """
    return sum(int(kernel.weights.min()) * kernel.candidates[0] for kernel in kernels)


def solve_channels(
    kernels: Sequence[ChannelKernel],
    dropped: Sequence[Sequence[float]],
    bound: int,
    *,
    time_limit: float = 60.0,
) -> ChannelSolution:
    """Chooses widths and channels so that the costs sum to the least and the bits to `bound` at
    most.

    Args:
        kernels: every kernel of the model, float ones too (candidates of 32).
        dropped: of each group, what it costs to keep each of its levels only.
        bound: parameter bits.
        time_limit: seconds after which the best answer so far is taken.

    Raises:
        AllocationError: no choice meets the bound, or none was found in time.
    """
    model: Any = mip.Model(sense=mip.MINIMIZE, solver_name=mip.CBC)
    model.verbose = 0
    model.threads = 1
    model.max_mip_gap = model.max_mip_gap_abs = 0.0
    model.integer_tol = 1e-9
    largest = max(
        [float(np.max(kernel.costs)) for kernel in kernels] + [max(one) for one in dropped] + [0.0]
    )
    scale = 1000.0 / largest if largest else 1.0
    keeps = [
        [model.add_var(var_type=mip.BINARY, obj=scale * cost) for cost in costs]
        for costs in dropped
    ]
    for keep in keeps:
        model += _xsum(keep) == 1
    used, chosen = [], []
    for kernel in kernels:
        picks = {
            index: model.add_var(var_type=mip.BINARY, obj=scale * float(kernel.costs[index]))
            for index in itertools.product(*map(range, kernel.costs.shape))
        }
        chosen.append(picks)
        model += _xsum(picks.values()) == 1
        for axis, group in ((1, kernel.read), (2, kernel.made)):
            for level, keep in enumerate(keeps[group] if group is not None else ()):
                here = [pick for index, pick in picks.items() if index[axis] == level]
                model += _xsum(here) == keep
        used += [
            kernel.candidates[index[0]] * int(kernel.weights[index[1:]]) * pick
            for index, pick in picks.items()
        ]
    model += _xsum(used) <= bound
    status = model.optimize(max_seconds=time_limit)
    if not model.num_solutions:
        raise AllocationError(
            f"The solver found no widths and channels. Received: {len(kernels)} kernels, {bound:,} "
            f"parameter bits; the least are {least_bits(kernels):,}, time_limit={time_limit:g}. "
            "Loosen the budget, or give a larger time_limit."
        )
    levels = tuple(_picked(dict(enumerate(keep))) for keep in keeps)
    picked = [_picked(picks) for picks in chosen]
    proven = status == mip.OptimizationStatus.OPTIMAL
    return _solution(kernels, dropped, bound, levels, picked, "optimal" if proven else "feasible")


def _solution(kernels, dropped, bound: int, levels, picked, status: str) -> ChannelSolution:
    """What was picked, counted again without the solver's tolerances."""
    pairs = list(zip(kernels, picked, strict=True))
    taken = sum(kernel.candidates[one[0]] * int(kernel.weights[one[1:]]) for kernel, one in pairs)
    if taken > bound:
        raise AllocationError(
            f"The solver's answer takes {taken:,} parameter bits, over the limit of {bound:,}. "
            "Please report this."
        )
    objective = sum(kernel.costs[one] for kernel, one in pairs)
    objective += sum(costs[level] for costs, level in zip(dropped, levels, strict=True))
    bits = {kernel.path: kernel.candidates[one[0]] for kernel, one in pairs}
    return ChannelSolution(levels, bits, float(objective), status)


def _picked(variables: dict) -> Any:
    return max(variables, key=lambda index: variables[index].x)
