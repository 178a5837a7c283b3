"""From sensitivities to widths: what the callback, and whoever allocates by hand, calls."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

import keras
import numpy as np

from bmpq_tf.allocation.budget import Budget
from bmpq_tf.allocation.device_plan import DevicePlan
from bmpq_tf.allocation.kernel import FLOAT_BITS, Kernel
from bmpq_tf.allocation.sensitivity import Measurement
from bmpq_tf.allocation.solver import Solution
from bmpq_tf.model.kernels import KernelState, measurement, model_kernels, within
from bmpq_tf.training import device_budget, distribution
from bmpq_tf.training.decision_options import (
    Costs,
    Sensitivity,
    checked_arguments,
    costs_by,
    objective_of,
)
from bmpq_tf.training.optimizer_state import optimizers_in, reset_slots
from bmpq_tf.training.tracking_checks import check_tracking, checked_kernels


def allocate_bits(
    model: keras.Model,
    budget: "str | float | Budget",
    sensitivities: "str | Sensitivity | Costs" = "first_order",
    *,
    min_improvement: float = 0.0,
    time_limit: float = 60.0,
) -> Solution:
    """Chooses a width for each kernel so that the estimated loss increase is least and the budget
    holds.

    The model is left as it is: `assign_bits(model, solution.bits)` gives it the widths. The
    definition is METHOD.md, "Allocation".

    Args:
        model: a quantized model. Frozen kernels keep their widths.
        budget: as `BMPQCallback` takes it.
        sensitivities: a mapping from kernel paths to the cost of each of the kernel's candidates,
            ascending; kernels that it does not name cost nothing. Or a name of an objective, or a
            callable as `BMPQCallback` takes it, for what training has accumulated; kernels that no
            gradient reached keep their widths then, unless the callable has `needs_gradients`
            False.
        min_improvement: share of the present widths' cost that other widths must save to replace
            them.
        time_limit: seconds for the solver.

    Returns:
        The `Solution`, with `bits` by kernel path.

    Raises:
        InfeasibleBudgetError: the candidates cannot meet the budget.
        AllocationError: no assignment was found in time.
        ValueError: the model is not built or has no quantized layers; a cost is not finite, there
            are more or fewer than candidates, or they are of no kernel of the model; sensitivities
            are asked for, and no gradient was seen; or min_improvement or time_limit are no share
            and no seconds.

    Example:
        >>> costs = {"conv/kernel": [3.0, 1.0, 0.0], "head/kernel": [0.4, 0.1, 0.0]}
        >>> bmpq_tf.allocate_bits(model, "8x", costs).bits
        {'conv/kernel': 8, 'head/kernel': 2}
    """
    min_improvement, time_limit = checked_arguments(min_improvement, time_limit)
    budget_parsed = Budget.parse(budget)
    known = checked_kernels(model)
    states = open_kernels(known)
    budget_parsed.check([state.kernel for state in states], budget)
    measured = {}
    if not isinstance(sensitivities, Mapping):
        needs_gradients = getattr(costs_by(sensitivities), "needs_gradients", True)
        states, measured = measured_kernels(known, objective_of(sensitivities), needs_gradients)
    kernels = [state.kernel for state in states]
    plan = device_budget.plan_for(model, budget_parsed)
    device_budget.check(kernels, budget_parsed, plan, budget)
    if isinstance(sensitivities, Mapping):
        costs = sensitivities
    else:
        choosable = [kernel.path for kernel in kernels if len(kernel.candidates) > 1]
        costs = costs_by(sensitivities)([measured[path] for path in choosable])
    return solve(
        states,
        budget_parsed,
        costs,
        model.distribute_strategy,
        min_improvement,
        time_limit,
        plan,
    )


def assign_bits(model: keras.Model, bits: Mapping[str, int]) -> list[str]:
    """Gives kernels other widths.

    Whatever depends on a width starts anew, the optimizer's memory of a learned scale too.

    Args:
        model: a quantized model.
        bits: widths by kernel path; kernels that it does not name keep theirs.

    Returns:
        The paths of the kernels whose width changed.

    Raises:
        ValueError: a path is not the model's, or a width is not among the kernel's candidates.

    Example:
        >>> bmpq_tf.assign_bits(model, {"head/kernel": 2})
        ['head/kernel']
        >>> [row.bits for row in bmpq_tf.kernel_table(model)]
        [8, 2]
    """
    known = model_kernels(model)
    states = [state for state in known if state.quantizer]
    kept = {state.kernel.path for state in known if bits.get(state.kernel.path) == FLOAT_BITS}
    _check_paths(set(bits) - kept, [state.kernel for state in states])
    for state in states:
        if state.kernel.path in bits:
            state.quantized.check_width(bits[state.kernel.path], state.variable)
    return assign(states, bits, optimizers_in(model))


def _check_paths(paths: Iterable[str], kernels: Sequence[Kernel]) -> None:
    """Raises ValueError for paths that are of none of these kernels."""
    known = {kernel.path for kernel in kernels}
    if unknown := sorted(set(paths) - known):
        raise ValueError(
            f"The model has no such kernels to decide. Received: {unknown}. Known: "
            f"{', '.join(sorted(known))}."
        )


def assign(
    states: Sequence[KernelState],
    bits: Mapping[str, int],
    optimizers: Sequence[keras.optimizers.Optimizer],
) -> list[str]:
    """As `assign_bits`, for kernels that are known already; each optimizer forgets what it knew of
    their scales.
    """
    changed = []
    for state in states:
        if (
            state.quantizer
            and state.kernel.path in bits
            and state.quantizer.set_width(bits[state.kernel.path], state.variable)
        ):
            changed.append(state.kernel.path)
            if state.quantizer.config.scale == "learned":
                for optimizer in optimizers:
                    reset_slots(optimizer, state.quantizer.log_gain)
    return changed


def open_kernels(
    states: Sequence[KernelState], unreached: Collection[str] = ()
) -> list[KernelState]:
    """The kernels with the candidates that are really open.

    One that is frozen, or that no gradient reached, keeps its width.
    """

    def fixed(state: KernelState) -> KernelState:
        kept = dataclasses.replace(
            state.kernel, candidates=(state.bits,), kept=len(state.kernel.candidates) > 1
        )
        return dataclasses.replace(state, kernel=kept)

    def is_open(state: KernelState) -> bool:
        return state.is_open and state.kernel.path not in unreached

    return [
        state if state.quantizer is None or is_open(state) else fixed(state) for state in states
    ]


def measured_kernels(
    states: Sequence[KernelState], objective: str, needs_gradients: bool = True
) -> tuple[list[KernelState], dict[str, Measurement]]:
    """Returns kernels as `open_kernels` does, and what training has accumulated of each that is
    quantized, by path.

    Raises:
        ValueError: gradients are needed, and no open kernel had any that was finite; or kernels do
            not track what the objective goes by.
    """
    check_tracking(states, needs_gradients, objective)
    opened = [state for state in states if state.is_open]
    unreached = {
        state.kernel.path
        for state in opened
        if needs_gradients and not state.quantized.accumulated().uses_finite
    }
    if opened and len(unreached) == len(opened):
        raise ValueError(
            "No gradients were seen, so no kernel can be judged. Received: a model that was not "
            "trained since it was quantized, or whose last allocation came after its last step. "
            "Train it for an epoch first, without a callback that allocates at its end. A callable "
            "of your own that needs no gradients has an attribute needs_gradients = False."
        )
    measured = {s.kernel.path: measurement(s, s.calls) for s in states if s.quantizer}
    return open_kernels(states, unreached), measured


def solve(
    states: Sequence[KernelState],
    budget: Budget,
    costs: Costs,
    strategy,
    min_improvement: float = 0.0,
    time_limit: float = 60.0,
    plan: DevicePlan | None = None,
) -> Solution:
    """Solves for kernels as `open_kernels` gives them.

    Under several workers the chief does, and all get its answer.

    Raises:
        ValueError: costs are of no kernel among them.
    """
    kernels = [state.kernel for state in states]
    _check_paths(costs, kernels)

    def solved() -> Solution:
        # Kernels that keep their widths have costs of all their candidates, or none.
        table = [
            [0.0] * len(kernel.candidates)
            if kernel.kept or kernel.path not in costs
            else costs[kernel.path]
            for kernel in kernels
        ]
        found = device_budget.solve_with_tables(kernels, table, budget, plan, time_limit)
        return _worth_changing(states, budget, table, found, min_improvement, plan)

    return distribution.solved_by_chief(strategy, kernels, solved)


def _worth_changing(
    states: Sequence[KernelState],
    budget: Budget,
    costs,
    found: Solution,
    min_improvement: float,
    plan: DevicePlan | None,
) -> Solution:
    """Returns the present widths where they meet the budget and the ones found save less than
    `min_improvement` of their cost.
    """
    if not within(budget, states, plan) or any(
        state.bits not in state.kernel.candidates for state in states
    ):
        return found
    present = float(
        sum(
            row[state.kernel.candidates.index(state.bits)]
            for state, row in zip(states, costs, strict=True)
        )
    )
    bits = {state.kernel.path: state.bits for state in states}
    if found.bits == bits or found.objective <= (1.0 - min_improvement) * present:
        return found
    bound = found.objective * (1.0 - found.gap) if np.isfinite(found.gap) else 0.0
    return dataclasses.replace(
        found,
        bits=bits,
        status="kept",
        objective=present,
        gap=1.0 - bound / present if present else 0.0,
    )
