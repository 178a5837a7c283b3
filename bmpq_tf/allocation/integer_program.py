"""The integer program itself, solved by CBC through python-mip on the choices that can still
matter.

Of thousands of choices the relaxation rules out nearly all, once a good assignment is known: what
costs more than the difference between that assignment and the bound is in no better one. Solving a
small core first gives the good assignment (Balas and Zemel 1980).
"""

import dataclasses
import time
from typing import Any

import mip
import numpy as np

from bmpq_tf.allocation.choices import Choices
from bmpq_tf.allocation.relaxation import Relaxation

_CORE = 40  # choices in the first core
_GROWTH = 3
# Costs count from the bound in this many parts of what is still to gain: CBC ignores improvements
# below about 1e-5.
_RESOLUTION = 1e4
# Beyond this size of coefficient CBC's tolerance of 1e-6 no longer tells whole units apart.
_LARGEST = 1e6
# Rounding of sums of thousands of costs up to 1.
_ROUNDING = 1e-12
# With a cutoff at the best so far, "infeasible" says that nothing in the core is better.
_SOLVED = {
    getattr(mip.OptimizationStatus, name)
    for name in ("OPTIMAL", "INFEASIBLE", "INT_INFEASIBLE", "CUTOFF")
}
_xsum: Any = mip.xsum


@dataclasses.dataclass(frozen=True)
class Answer:
    """The best assignment found (`None`: there is none), and the least that any may cost."""

    picked: np.ndarray | None
    bound: float
    proven: bool


def solve(choices: Choices, relaxed: Relaxation, deadline: float) -> Answer:
    """Solves growing cores until every choice that could improve the best assignment was in one.

    Args:
        choices: the program.
        relaxed: its relaxation.
        deadline: `time.perf_counter()` at which to return what there is.
    """
    picked = None if relaxed.feasible is None else _fill(choices, relaxed.feasible)
    others = np.isfinite(relaxed.reduced)
    others[np.arange(len(others)), relaxed.base] = False
    size = _CORE
    while True:
        gain = np.inf if picked is None else choices.cost(picked) - relaxed.bound
        open_choices = others & (relaxed.reduced <= gain + _ROUNDING)
        if gain <= _ROUNDING:
            return Answer(picked, relaxed.bound, proven=True)
        core = (
            open_choices
            if open_choices.sum() <= 1.5 * size
            else open_choices & _core(choices, relaxed, others, size)
        )
        better, bound, solved = _solve_core(choices, relaxed, core, gain, deadline)
        if better is not None and (picked is None or choices.cost(better) < choices.cost(picked)):
            picked = better
            gain = choices.cost(picked) - relaxed.bound
        complete = not (open_choices & (relaxed.reduced <= gain + _ROUNDING) & ~core).any()
        if not solved:
            return Answer(
                picked, relaxed.bound + bound if complete else relaxed.bound, proven=False
            )
        if complete:
            return Answer(
                picked, relaxed.bound if picked is None else choices.cost(picked), proven=True
            )
        size *= _GROWTH


def _core(choices: Choices, relaxed: Relaxation, others: np.ndarray, size: int) -> np.ndarray:
    """The choices nearest to the base.

    A quarter by what they lose, the rest by what they lose for what they move.
    """
    moves = choices.uses - np.take_along_axis(choices.uses, relaxed.base[None, :, None], 2)
    moved = np.tensordot(relaxed.multipliers, np.abs(moves), 1)
    ratio = relaxed.reduced / np.maximum(moved, np.finfo(float).tiny)

    def nearest(measure, count):
        values = measure[others]
        return (
            measure
            <= np.partition(values, min(count, len(values)) - 1)[min(count, len(values)) - 1]
        )

    return nearest(relaxed.reduced, size // 4) | nearest(ratio, size - size // 4)


def _fill(choices: Choices, picked: np.ndarray) -> np.ndarray:
    """Spends room that is left, the largest saving first."""
    picked = picked.copy()
    for _ in range(len(picked)):
        here = picked[:, None]
        saving = np.take_along_axis(choices.costs, here, 1) - choices.costs
        moves = choices.uses - np.take_along_axis(choices.uses, here[None], 2)
        left = choices.room - choices.used(picked)
        saving = np.where((moves <= left[:, None, None]).all(0), saving, -np.inf)
        kernel, choice = np.unravel_index(saving.argmax(), saving.shape)
        if saving[kernel, choice] <= 0:
            break
        picked[kernel] = choice
    return picked


def _solve_core(choices, relaxed, core, gain, deadline) -> tuple[np.ndarray | None, float, bool]:
    """Returns the best assignment within a core (`None`: none is better), a bound on it above the
    relaxation's, and whether that is proven.
    """
    base, rows = relaxed.base, np.flatnonzero(core.any(1))
    if not len(rows):
        return (base if choices.fits(base) else None), 0.0, True
    scale = _RESOLUTION / (
        gain if np.isfinite(gain) else max(relaxed.reduced[core].max(initial=0.0), _ROUNDING)
    )
    # Its operators build expressions, which its type hints do not know.
    model: Any = mip.Model(sense=mip.MINIMIZE, solver_name=mip.CBC)
    model.verbose = 0
    model.threads = 1
    model.max_mip_gap = model.max_mip_gap_abs = 0.0
    model.integer_tol = 1e-9
    variables = {
        (row, choice): model.add_var(
            var_type=mip.BINARY, obj=float(relaxed.reduced[row, choice] * scale)
        )
        for row in rows
        for choice in np.flatnonzero(core[row])
    }
    for row in rows:
        # None of them means the base.
        model += _xsum(variables[row, choice] for choice in np.flatnonzero(core[row])) <= 1
    unused = []
    for uses, room, price in zip(
        choices.uses, choices.room - choices.used(base), relaxed.multipliers, strict=True
    ):
        moves = {
            (row, choice): float(uses[row, choice] - uses[row, base[row]])
            for row, choice in variables
        }
        unit = max(1.0, max(map(abs, moves.values())) / _LARGEST)
        # The price of unused room beside the reduced costs gives small figures: what an assignment
        # costs above the bound.
        unused.append(model.add_var(lb=0.0, obj=float(price * unit * scale)))
        model += _xsum(move / unit * variables[index] for index, move in moves.items()) + unused[
            -1
        ] == float(room / unit)
    if np.isfinite(gain):
        model.cutoff = gain * scale * (1 + 1e-9)
    status = model.optimize(max_seconds=max(0.01, deadline - time.perf_counter()))
    solved = status in _SOLVED
    bound = max(0.0, float(model.objective_bound or 0.0) / scale) if not solved else 0.0
    if not model.num_solutions:
        return None, bound, solved
    picked = base.copy()
    for (row, choice), variable in variables.items():
        if variable.x > 0.5:
            picked[row] = choice
    return picked, bound, solved
