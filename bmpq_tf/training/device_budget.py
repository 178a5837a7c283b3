"""Budgets of flash and RAM: what the exporter tells of a file, and why none fits."""

import dataclasses
import math
import time
from collections.abc import Sequence

import keras

from bmpq_tf.allocation.budget import Budget, InfeasibleBudgetError
from bmpq_tf.allocation.device_plan import DevicePlan
from bmpq_tf.allocation.infeasibility import holding_up
from bmpq_tf.allocation.kernel import Kernel, Limit
from bmpq_tf.allocation.solver import AllocationError, Solution, solve_allocation

# Whether any widths meet a budget is found out in so many seconds, or it is not known.
_SECONDS = 60.0
# What each set of tables gets, whatever the ones before took.
_LEAST_SECONDS = 1.0


def plan_for(model: keras.Model, budget: Budget) -> DevicePlan | None:
    """Returns the plan that a budget needs; `None` where it limits neither flash nor RAM."""
    if not budget.needs_plan:
        return None
    # LiteRT and TFLM take a while to import.
    from bmpq_tf.export.device_plan import device_plan

    return device_plan(model)


def solve_with_tables(
    kernels: Sequence[Kernel],
    costs: Sequence[Sequence[float]],
    budget: Budget,
    plan: DevicePlan | None,
    time_limit: float,
) -> Solution:
    """Solves once for each set of tables that a file may share; returns the best, which is the
    optimal one only where every set was proven.

    Raises:
        AllocationError: none has an assignment, or none was found in time.
    """
    best, refused, unproven = None, None, 0
    deadline = time.monotonic() + time_limit
    # Without a limit of flash it does not matter which there are.
    sets = [frozenset[int]()] if plan is None or budget.flash is None else plan.table_sets(kernels)
    for tables in sets:
        try:
            limits = budget.limits(kernels, plan, tables)
            left = max(_LEAST_SECONDS, deadline - time.monotonic())
            found = solve_allocation(kernels, costs, limits, time_limit=left)
        except AllocationError as error:
            refused = error if refused is None or refused.proven else refused
            unproven += not error.proven
            continue
        unproven += found.status != "optimal"
        if best is None or found.objective < best.objective:
            best = found
    if best is None:
        assert refused is not None
        raise refused
    if unproven > (best.status != "optimal"):
        # Another set, which was not searched to its end, may have a better one.
        best = dataclasses.replace(best, status="feasible", gap=math.inf)
    return best


def check(kernels: Sequence[Kernel], budget: Budget, plan: DevicePlan | None, said) -> None:
    """Raises `InfeasibleBudgetError` if no widths meet the limits of a budget, each alone and
    together, and `AllocationError` if the latter was not found out in time.
    """
    check_each(kernels, budget, plan, said)
    if plan is not None:
        _check_together(kernels, budget, plan, said)


def check_each(kernels: Sequence[Kernel], budget: Budget, plan: DevicePlan | None, said) -> None:
    """Raises `InfeasibleBudgetError` if no widths meet one of the limits."""
    budget.check(kernels, said)
    if plan is None:
        return
    received = _received(budget, said)
    if budget.flash is not None:
        bound = float(budget.flash)
        sets = plan.table_sets(kernels)
        row = min((plan.flash_limit(kernels, bound, tables) for tables in sets), key=_least)
        if (smallest := _least(row)) > bound:
            raise InfeasibleBudgetError(
                f"The budget cannot be met. {received}, which allows {budget.flash:,.0f} bytes of "
                f"flash. The smallest file of this model takes {smallest:,} bytes, {plan.flash:,} "
                "of them without any kernel: the graph, scales and biases"
                f"{holding_up(kernels, row)}."
            )
    for limit in _ram(kernels, budget, plan):
        if _least(limit) > float(budget.ram or 0):
            raise InfeasibleBudgetError(_no_room(limit, plan, budget, received))


def _check_together(kernels: Sequence[Kernel], budget: Budget, plan: DevicePlan, said) -> None:
    zeros = [[0.0] * len(kernel.candidates) for kernel in kernels]
    try:
        solve_with_tables(kernels, zeros, budget, plan, _SECONDS)
    except AllocationError as error:
        if not error.proven:
            raise
        others = [*budget.limits(kernels), *_ram(kernels, budget, plan)]
        raise InfeasibleBudgetError(
            f"The budget cannot be met. {_received(budget, said)}. Each limit alone could be, but "
            f"not all at once{_least_flash(kernels, budget, plan, others)}: a kernel that is "
            "unpacked at run time takes little flash and much RAM, one in int8 the other way "
            "round. Allow more flash or more RAM."
        ) from error


def _received(budget: Budget, said) -> str:
    return f"Received: budget='{said if said is not None else budget}'"


def _ram(kernels: Sequence[Kernel], budget: Budget, plan: DevicePlan) -> list[Limit]:
    return plan.ram_limits(kernels, float(budget.ram)) if budget.ram is not None else []


def _least(limit: Limit) -> int:
    return limit.beside + sum(min(row) for row in limit.coefficients)


def _no_room(limit: Limit, plan: DevicePlan, budget: Budget, received: str) -> str:
    alone = plan.planned + plan.persistent
    if alone > float(budget.ram or 0):
        return (
            f"The budget cannot be met. {received}, which allows {budget.ram:,.0f} bytes of RAM. "
            f"Without any kernel {alone:,} are needed: {plan.planned:,} for activations, the most "
            f"at {plan.busiest}, and {plan.persistent:,} for what the runtime keeps. Make what "
            "that layer reads and writes smaller, or allow more RAM."
        )
    return (
        f"The budget cannot be met. {received}, which allows {budget.ram:,.0f} bytes of RAM. The "
        f"least are {_least(limit):,} {limit.name}: a kernel of that width is unpacked beside the "
        "activations. Let it have 8 bits, which are read from flash as they are, make the layer "
        "smaller, or allow more RAM."
    )


def _least_flash(kernels, budget: Budget, plan: DevicePlan, others: list[Limit]) -> str:
    """The least flash within the other limits, in words."""
    if budget.flash is None:
        return ""
    found = []
    for tables in plan.table_sets(kernels):
        row = plan.flash_limit(kernels, 2.0**40, tables)
        costs = [[float(value) for value in one] for one in row.coefficients]
        try:
            solution = solve_allocation(kernels, costs, others)
        except AllocationError:
            continue
        found.append(plan.flash_bytes(solution.bits))
    return f"; within the others, {min(found):,} bytes of flash are the least" if found else ""
