"""Allocation: ours beside whole programs in CBC, HiGHS and PuLP, a dynamic program and brute force:
seconds and gap.
"""

import itertools
import math
import statistics
import time
from collections.abc import Callable

import mip
import numpy as np

from bmpq_research.benchmarks.measure import alternate, paired_ratio
from bmpq_research.benchmarks.report import Result
from bmpq_tf.allocation.budget import Budget
from bmpq_tf.allocation.kernel import Kernel
from bmpq_tf.allocation.solver import solve_allocation as ours

WIDTHS = {2: (2, 8), 4: (2, 3, 4, 8), 7: (2, 3, 4, 5, 6, 7, 8)}
_SIZES = (10, 100, 1000, 5000)
_BRUTE = 2**20  # assignments
_TABLE = 2**27  # entries of the dynamic program's table, over all kernels


def allocate(time_limit: float = 20.0, rounds: int = 3) -> list[Result]:
    """Measures every solver on 10 to 5,000 kernels with 2, 4 and 7 widths.

    The objective is told relative to the best found.
    """
    results, skipped = [], []
    solvers = dict(_SOLVERS)
    for name in ("HiGHS, whole program", "PuLP (CBC), whole program"):
        try:
            solvers[name](*problem(3, 2), 1.0)
        except Exception as error:
            del solvers[name]
            skipped.append(
                f"{name} was skipped: {str(error).strip().rstrip('.') or type(error).__name__}."
            )
    for count, widths in itertools.product(_SIZES, WIDTHS):
        results += _rows(solvers, count, widths, time_limit, rounds)
    return [Result("Allocation under one limit", results, tuple(skipped))]


def quick() -> list[Result]:
    """How many times faster ours is than CBC on the whole program of 1,000 kernels and 7 widths
    (which may take 20 seconds).
    """
    data = problem(1000, 7)
    times = alternate(
        {
            "ours": lambda: _ours(*data, 20.0),
            "whole": lambda: _SOLVERS["CBC, whole program"](*data, 20.0),
        },
        rounds=1,
        warm_up=0,
    )
    ratio = paired_ratio(times["whole"], times["ours"])
    rows = [
        {
            "kernels": 1000,
            "widths": 7,
            "ours, seconds": times["ours"][0],
            "ratio to CBC alone": ratio,
        }
    ]
    return [Result("Allocation", rows, ratios={"allocation, 1,000 kernels": ratio})]


def problem(count: int, widths: int, seed: int = 0) -> tuple[list[Kernel], list[list[float]], list]:
    """Kernels of 100 to a million weights, costs that about halve with every bit, and a budget of
    3.3 bits a weight.
    """
    generator = np.random.default_rng(seed)
    sizes = np.exp(generator.uniform(np.log(1e2), np.log(1e6), count)).astype(int)
    factors = np.exp(generator.normal(0.0, 1.5, count))
    kernels = [Kernel(str(number), int(size), WIDTHS[widths]) for number, size in enumerate(sizes)]
    rows = [
        [size * factor * 2.0**-bits * generator.uniform(1, 1.1) for bits in WIDTHS[widths]]
        for size, factor in zip(sizes, factors, strict=True)
    ]
    costs = [np.maximum.accumulate(row[::-1])[::-1].tolist() for row in rows]
    return kernels, costs, Budget(average_bits=3.3).limits(kernels)


def _rows(solvers, count, widths, time_limit, rounds):
    data = problem(count, widths)
    answers, times = {}, {name: [] for name in solvers}
    for number in range(rounds):
        for name, solve in solvers.items():
            # What took long once is not asked again.
            if number and (name not in answers or times[name][0] > 2.0):
                continue
            start = time.perf_counter()
            answer = solve(*data, time_limit)
            if answer is not None:
                times[name].append(time.perf_counter() - start)
                answers[name] = answer
    best = min(objective for objective, _ in answers.values())
    return [
        {
            "kernels": count,
            "widths": widths,
            "solver": name,
            "seconds": statistics.median(times[name]),
            "gap": "exact" if math.isnan(gap) else f"{gap:.1e}",
            "above the best": f"{objective / best - 1:.1e}",
        }
        for name, (objective, gap) in answers.items()
    ]


def _ours(kernels, costs, limits, time_limit):
    solution = ours(kernels, costs, limits, time_limit=time_limit)
    return solution.objective, solution.gap


def _whole(solver: str) -> Callable:
    """The program as METHOD.md writes it, handed over whole."""

    def solve(kernels, costs, limits, time_limit):
        model = mip.Model(sense=mip.MINIMIZE, solver_name=solver)
        model.verbose, model.threads, model.max_mip_gap, model.max_mip_gap_abs = 0, 1, 0.0, 0.0
        scale = 1e6 / max(max(row) - min(row) for row in costs)
        chosen = [
            [
                model.add_var(var_type=mip.BINARY, obj=float((cost - min(row)) * scale))
                for cost in row
            ]
            for row in costs
        ]
        for variables in chosen:
            model += mip.xsum(variables) == 1
        for limit in limits:
            terms = (
                use * x
                for row, xs in zip(limit.coefficients, chosen, strict=True)
                for use, x in zip(row, xs, strict=True)
            )
            model += mip.xsum(terms) <= limit.bound
        model.optimize(max_seconds=time_limit)
        if not model.num_solutions:
            return None
        objective = sum(
            row[max(range(len(xs)), key=lambda i, xs=xs: xs[i].x)]
            for row, xs in zip(costs, chosen, strict=True)
        )
        return float(objective), float(model.gap)

    return solve


def _pulp(kernels, costs, limits, time_limit):
    import pulp

    model = pulp.LpProblem("widths", pulp.LpMinimize)
    chosen = [
        [pulp.LpVariable(f"x_{i}_{j}", cat="Binary") for j in range(len(row))]
        for i, row in enumerate(costs)
    ]
    scale = 1e6 / max(max(row) - min(row) for row in costs)
    model += pulp.lpSum(
        (cost - min(row)) * scale * x
        for row, xs in zip(costs, chosen, strict=True)
        for cost, x in zip(row, xs, strict=True)
    )
    for variables in chosen:
        model += pulp.lpSum(variables) == 1
    for limit in limits:
        model += (
            pulp.lpSum(
                u * x
                for row, xs in zip(limit.coefficients, chosen, strict=True)
                for u, x in zip(row, xs, strict=True)
            )
            <= limit.bound
        )
    status = model.solve(pulp.PULP_CBC_CMD(msg=False, threads=1, timeLimit=time_limit, gapRel=0.0))
    if status != pulp.LpStatusOptimal:
        return None
    objective = sum(
        row[max(range(len(xs)), key=lambda i, xs=xs: xs[i].value() or 0)]
        for row, xs in zip(costs, chosen, strict=True)
    )
    # PuLP does not tell a gap; it calls a time-out optimal too.
    return float(objective), math.nan if model.sol_status == pulp.LpSolutionOptimal else math.inf


def _dynamic(kernels, costs, limits, time_limit):
    """The textbook recurrence over every number of bits.

    Exact, but its table grows with the model's weights.
    """
    (limit,) = limits
    if (limit.bound + 1) * len(kernels) > _TABLE:
        return None
    best = np.zeros(limit.bound + 1)
    for row, uses in zip(costs, limit.coefficients, strict=True):
        shifted = [
            np.concatenate([np.full(use, np.inf), best[: len(best) - use]]) + cost
            for cost, use in zip(row, uses, strict=True)
        ]
        best = np.min(shifted, 0)
    return float(best[-1]), math.nan


def _brute(kernels, costs, limits, time_limit):
    if math.prod(len(row) for row in costs) > _BRUTE:
        return None
    best = math.inf
    for picked in itertools.product(*(range(len(row)) for row in costs)):
        if all(
            sum(row[b] for row, b in zip(limit.coefficients, picked, strict=True)) <= limit.bound
            for limit in limits
        ):
            best = min(best, sum(row[b] for row, b in zip(costs, picked, strict=True)))
    return best, math.nan


_SOLVERS = {
    "ours": _ours,
    "CBC, whole program": _whole(mip.CBC),
    "HiGHS, whole program": _whole(mip.HIGHS),
    "PuLP (CBC), whole program": _pulp,
    "dynamic program": _dynamic,
    "brute force": _brute,
}
