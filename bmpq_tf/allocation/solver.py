"""The integer linear program that assigns the widths (METHOD.md, "Allocation"), solved by CBC
through python-mip.
"""

import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np

from bmpq_tf.allocation.choices import choices
from bmpq_tf.allocation.integer_program import Answer, solve
from bmpq_tf.allocation.kernel import Kernel, Limit
from bmpq_tf.allocation.relaxation import relax

STATUSES = ("optimal", "feasible", "kept")


class AllocationError(RuntimeError):
    """The solver came back without an assignment.

    Its attribute `proven` says whether there is known to be none, so that more time would not help.

    Example:
        >>> try:
        ...     solution = bmpq_tf.allocate_bits(model, "8x", time_limit=5.0)
        ... except bmpq_tf.AllocationError:
        ...     solution = bmpq_tf.allocate_bits(model, "8x", time_limit=600.0)
        >>> solution.status
        'optimal'
    """

    def __init__(self, message: str, proven: bool = False):
        super().__init__(message)
        self.proven = proven


@dataclasses.dataclass(frozen=True)
class Solution:
    """An assignment of widths.

    Attributes:
        bits: the width of each kernel, by path.
        status: `"optimal"` if proven, at a gap of zero; `"feasible"` if the time ran out first;
            `"kept"` if another one was found, but saved too little to change to it
            (`BMPQCallback`'s `min_improvement`).
        objective: the sum of the costs chosen.
        gap: the proven relative distance to the best possible objective; 0 if optimal.
        seconds: what the solver took.

    Example:
        >>> costs = {"conv/kernel": [3.0, 1.0, 0.0], "head/kernel": [0.4, 0.1, 0.0]}
        >>> solution = bmpq_tf.allocate_bits(model, "8x", costs)
        >>> solution.status, solution.objective, solution.gap
        ('optimal', 0.4, 0.0)
    """

    bits: dict[str, int]
    status: str
    objective: float
    gap: float
    seconds: float


def solve_allocation(
    kernels: Sequence[Kernel],
    costs: Sequence[Sequence[float]],
    limits: Sequence[Limit],
    *,
    time_limit: float = 60.0,
) -> Solution:
    """Chooses one width for each kernel so that the costs sum to the least and every limit holds.

    Args:
        kernels: every kernel of the model, pinned and float ones too: they count against the
            limits.
        costs: for each kernel, a cost for each of its candidates, in their order; finite.
        limits: rows over the same kernels and candidates, as `Budget.limits` gives them.
        time_limit: seconds after which the best assignment so far is taken.

    Returns:
        The `Solution`; the same input gives the same answer (one thread).

    Raises:
        ValueError: a cost is not finite, or the tables do not fit the kernels.
        AllocationError: no assignment meets the limits, or none was found in time.
    """
    _check(kernels, costs, limits)
    started = time.perf_counter()
    table = choices(kernels, costs, limits)
    # A kernel without a choice left, or no room: the rows cannot hold together.
    possible = np.isfinite(table.costs).any(1).all() and (table.room >= 0).all()
    answer = (
        solve(table, relax(table), started + time_limit)
        if possible
        else Answer(None, math.inf, proven=True)
    )
    if answer.picked is None:
        raise AllocationError(
            "The solver found no assignment "
            f"({'there is none' if answer.proven else f'within {time_limit:g} s'}). Received: "
            f"{len(kernels)} "
            f"kernels, limits {', '.join(f'{limit.name} <= {limit.bound:,}' for limit in limits)}. "
            "Check the budget with Budget.check first.",
            proven=answer.proven,
        )
    picked = answer.picked.tolist()
    for limit in limits:
        used = sum(row[b] for row, b in zip(limit.coefficients, picked, strict=True))
        if used > limit.bound:
            raise AllocationError(
                f"The solver's answer uses {used:,} {limit.name}, over the limit of "
                f"{limit.bound:,}. Please report this."
            )
    objective = float(sum(row[b] for row, b in zip(costs, picked, strict=True)))
    spread = max(max(row) - min(row) for row in costs)
    above = max(0.0, table.cost(answer.picked) - answer.bound) * spread
    return Solution(
        bits={kernel.path: kernel.candidates[b] for kernel, b in zip(kernels, picked, strict=True)},
        status="optimal" if answer.proven else "feasible",
        objective=objective,
        gap=0.0 if answer.proven else above / abs(objective) if objective else math.inf,
        seconds=time.perf_counter() - started,
    )


def _check(kernels, costs, limits) -> None:
    if len(costs) != len(kernels):
        raise ValueError(
            f"Each kernel needs a row of costs. Received: {len(costs)} rows for {len(kernels)} "
            "kernels."
        )
    for kernel, row in zip(kernels, costs, strict=True):
        if len(row) != len(kernel.candidates):
            raise ValueError(
                f"A kernel needs a cost for each candidate. Received: costs={list(row)} for kernel "
                f"'{kernel.path}' with the candidates {kernel.candidates}."
            )
        if not all(math.isfinite(cost) for cost in row):
            raise ValueError(
                f"A cost is not finite, so nothing can be decided. Received: costs={list(row)} for "
                f"kernel '{kernel.path}'."
            )
    for limit in limits:
        if len(limit.coefficients) != len(kernels):
            raise ValueError(
                f"Limit '{limit.name}' is not over these kernels. Received: "
                f"{len(limit.coefficients)} rows, {len(kernels)} kernels."
            )
