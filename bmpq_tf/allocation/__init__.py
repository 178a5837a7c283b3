"""The integer linear program that assigns the widths (METHOD.md, "Allocation"), solved by CBC through python-mip."""

import dataclasses
import math
import time
from collections.abc import Sequence

import mip

from bmpq_tf.budget import Kernel, Limit

# Beyond this many kernels a proof of optimality may cost more than it is worth, so a small gap is allowed.
EXACT_UP_TO = 200
GAP_ABOVE = 1e-4
# CBC ignores improvements below about 1e-5, so the costs are spread over many times that.
_SPREAD = 1e6


class AllocationError(RuntimeError):
    """The solver came back without an assignment."""


@dataclasses.dataclass(frozen=True)
class Solution:
    """An assignment of widths.

    Attributes:
        bits: the width of each kernel, by path.
        status: `"optimal"` if proven (within the gap asked for), `"feasible"` if the time ran out first.
        objective: the sum of the costs chosen.
        gap: the proven relative distance to the best possible objective; 0 where optimality is exact.
        seconds: what the solver took.
    """

    bits: dict[str, int]
    status: str
    objective: float
    gap: float
    seconds: float


def allocate(
    kernels: Sequence[Kernel],
    costs: Sequence[Sequence[float]],
    limits: Sequence[Limit],
    *,
    time_limit: float = 60.0,
) -> Solution:
    """Chooses one width for each kernel so that the costs sum to the least and every limit holds.

    Args:
        kernels: every kernel of the model, pinned and float ones too: they count against the limits.
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
    model = mip.Model(sense=mip.MINIMIZE, solver_name=mip.CBC)
    model.verbose = 0
    model.threads = 1
    model.max_mip_gap = 0.0 if len(kernels) <= EXACT_UP_TO else GAP_ABOVE
    model.max_mip_gap_abs = 0.0
    choose = [[model.add_var(var_type=mip.BINARY) for _ in kernel.candidates] for kernel in kernels]
    for row in choose:
        model += mip.xsum(row) == 1
    for limit in limits:
        unit = math.gcd(limit.bound, *(value for row in limit.coefficients for value in row)) or 1
        terms = (value // unit * x for row, xs in zip(limit.coefficients, choose, strict=True) for value, x in zip(row, xs, strict=True))
        model += mip.xsum(terms) <= limit.bound // unit
    # Only differences within a kernel matter; what all candidates share is taken off before scaling.
    least = [min(row) for row in costs]
    spread = max((max(row) - low for row, low in zip(costs, least, strict=True)), default=0.0) or 1.0
    model.objective = mip.xsum(
        (cost - low) / spread * _SPREAD * x for row, low, xs in zip(costs, least, choose, strict=True) for cost, x in zip(row, xs, strict=True)
    )
    status = model.optimize(max_seconds=time_limit)
    if not model.num_solutions:
        raise AllocationError(
            f"The solver found no assignment ({status.name.lower()}). Received: {len(kernels)} kernels, limits "
            f"{', '.join(f'{limit.name} <= {limit.bound:,}' for limit in limits)}. Check the budget with Budget.check first."
        )
    picked = [max(range(len(xs)), key=lambda b, xs=xs: xs[b].x) for xs in choose]
    for limit in limits:
        used = sum(row[b] for row, b in zip(limit.coefficients, picked, strict=True))
        if used > limit.bound:
            raise AllocationError(f"The solver's answer uses {used:,} {limit.name}, over the limit of {limit.bound:,}. Please report this.")
    optimal = status is mip.OptimizationStatus.OPTIMAL
    return Solution(
        bits={kernel.path: kernel.candidates[b] for kernel, b in zip(kernels, picked, strict=True)},
        status="optimal" if optimal else "feasible",
        objective=float(sum(row[b] for row, b in zip(costs, picked, strict=True))),
        gap=max(0.0, float(model.gap)) if math.isfinite(model.gap) else math.inf,
        seconds=time.perf_counter() - started,
    )


def _check(kernels, costs, limits) -> None:
    if len(costs) != len(kernels) or any(len(row) != len(kernel.candidates) for row, kernel in zip(costs, kernels, strict=True)):
        raise ValueError(f"Each kernel needs a cost for each candidate. Received: {len(costs)} rows for {len(kernels)} kernels.")
    for kernel, row in zip(kernels, costs, strict=True):
        if not all(math.isfinite(cost) for cost in row):
            raise ValueError(f"A cost is not finite, so nothing can be decided. Received: costs={list(row)} for kernel '{kernel.path}'.")
    for limit in limits:
        if len(limit.coefficients) != len(kernels):
            raise ValueError(f"Limit '{limit.name}' is not over these kernels. Received: {len(limit.coefficients)} rows, {len(kernels)} kernels.")
