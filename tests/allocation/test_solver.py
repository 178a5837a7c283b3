"""The integer program against brute force, and against optima worked out by hand at the budget's
edges.
"""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmpq_tf.allocation import integer_program
from bmpq_tf.allocation.budget import Budget
from bmpq_tf.allocation.kernel import Kernel, Limit
from bmpq_tf.allocation.solver import AllocationError, solve_allocation

pytestmark = pytest.mark.quick

widths = st.lists(st.integers(2, 8), min_size=1, max_size=4, unique=True).map(
    lambda values: tuple(sorted(values))
)
cost = st.floats(0, 1e6, allow_subnormal=False)


@st.composite
def problems(draw):
    """Kernels, costs and up to three limits, some of which rule out everything.

    Coefficients up to 10^12, as bit operations have.
    """
    kernels = [Kernel(f"k{i}", 1, draw(widths)) for i in range(draw(st.integers(1, 6)))]
    costs = [
        sorted((draw(cost) for _ in kernel.candidates), reverse=draw(st.booleans()))
        for kernel in kernels
    ]
    limits = []
    for number in range(draw(st.integers(0, 3))):
        value = st.integers(0, 10 ** draw(st.integers(1, 12)))
        table = tuple(tuple(draw(value) for _ in kernel.candidates) for kernel in kernels)
        least, most = sum(map(min, table)), sum(map(max, table))
        limits.append(Limit(f"row {number}", table, draw(st.integers(least - least // 10, most))))
    return kernels, costs, limits


@settings(max_examples=150)
@given(problem=problems())
def test_as_good_as_brute_force_and_never_over_a_limit(problem):
    kernels, costs, limits = problem
    feasible = [
        sum(row[b] for row, b in zip(costs, picked, strict=True))
        for picked in itertools.product(*(range(len(kernel.candidates)) for kernel in kernels))
        if all(
            sum(row[b] for row, b in zip(limit.coefficients, picked, strict=True)) <= limit.bound
            for limit in limits
        )
    ]
    if not feasible:
        with pytest.raises(AllocationError, match="there is none"):
            solve_allocation(kernels, costs, limits)
        return
    solution = solve_allocation(kernels, costs, limits)
    assert solution.status == "optimal"
    assert solution.gap == 0
    for limit in limits:
        used = (
            row[kernel.candidates.index(solution.bits[kernel.path])]
            for row, kernel in zip(limit.coefficients, kernels, strict=True)
        )
        assert sum(used) <= limit.bound
    assert solution.objective <= min(feasible) + 1e-9 * max(max(row) - min(row) for row in costs)


KERNELS = [Kernel("a", 100, (2, 4, 8)), Kernel("b", 300, (2, 4, 8))]
COSTS = [[9.0, 3.0, 0.0], [5.0, 4.0, 0.0]]


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (800, (2, 2)),  # all at the narrowest, exactly
        (999, (2, 2)),  # one bit short of widening a to 4
        (1000, (4, 2)),
        (1399, (4, 2)),
        (1400, (8, 2)),
        (3200, (8, 8)),  # all at the widest, exactly
        (10**9, (8, 8)),
    ],
)
def test_optima_by_hand_at_the_edges(bits, expected):
    solution = solve_allocation(KERNELS, COSTS, Budget(weight_bytes=bits / 8).limits(KERNELS))
    assert (solution.bits["a"], solution.bits["b"]) == expected
    assert solution.status == "optimal"


def test_several_limits_hold_at_once():
    macs = [Kernel("a", 100, (2, 4, 8), macs=1000), Kernel("b", 300, (2, 4, 8), macs=10)]
    budget = Budget(weight_bytes=3200 / 8, bit_operations=32 * (1000 * 4 + 10 * 8))
    budget.check(macs)
    solution = solve_allocation(macs, COSTS, budget.limits(macs))
    assert solution.bits == {"a": 4, "b": 8}


def test_pinned_and_float_kernels_count():
    kernels = [
        Kernel("pinned", 100, (8,), pinned=True),
        Kernel("open", 100, (2, 4, 8)),
        Kernel("float", 10, (32,)),
    ]
    limits = Budget(weight_bytes=(800 + 400 + 320) / 8).limits(kernels)
    assert solve_allocation(kernels, [[0.0], [2.0, 1.0, 0.0], [0.0]], limits).bits == {
        "pinned": 8,
        "open": 4,
        "float": 32,
    }


def test_the_same_input_gives_the_same_answer_where_many_are_as_good():
    kernels = [Kernel(str(i), 100, (2, 4)) for i in range(12)]
    limits = Budget(average_bits=3).limits(kernels)
    answers = [solve_allocation(kernels, [[1.0, 0.0]] * 12, limits).bits for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]


def test_a_cost_that_is_not_finite_never_reaches_the_solver():
    with pytest.raises(ValueError, match=r"not finite.*kernel 'b'"):
        solve_allocation(
            KERNELS, [COSTS[0], [float("nan"), 1.0, 0.0]], Budget(average_bits=4).limits(KERNELS)
        )


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"a row of costs. Received: 1 rows for 2 kernels"):
        solve_allocation(KERNELS, COSTS[:1], [])
    with pytest.raises(ValueError, match="not over these kernels"):
        solve_allocation(KERNELS, COSTS, [Limit("bits", ((1, 2, 3),), 3)])


def large_problem(count, candidates):
    generator = np.random.default_rng(0)
    kernels = [
        Kernel(str(i), int(generator.integers(100, 100_000)), candidates) for i in range(count)
    ]
    costs = [
        sorted(
            (kernel.weights * generator.random() * 4.0**-bits for bits in candidates), reverse=True
        )
        for kernel in kernels
    ]
    return kernels, costs, Budget(average_bits=3.3).limits(kernels)


@pytest.mark.parametrize("seed", range(3))
def test_as_good_as_dynamic_programming_however_small_the_first_core(seed, monkeypatch):
    monkeypatch.setattr(integer_program, "_CORE", 4)
    generator = np.random.default_rng(seed)
    candidates = (2, 3, 4, 5, 6, 7, 8)
    kernels = [Kernel(str(i), int(generator.integers(1, 400)), candidates) for i in range(80)]
    costs = [
        sorted(
            (kernel.weights * generator.random() * 2.0**-bits for bits in candidates), reverse=True
        )
        for kernel in kernels
    ]
    limits = Budget(average_bits=3.3).limits(kernels)
    best = np.zeros(limits[0].bound + 1)  # by bits used at most
    for row, uses in zip(costs, limits[0].coefficients, strict=True):
        best = np.min(
            [
                np.concatenate([np.full(used, np.inf), best[: len(best) - used]]) + cost
                for cost, used in zip(row, uses, strict=True)
            ],
            0,
        )
    assert solve_allocation(kernels, costs, limits).objective == pytest.approx(best[-1], rel=1e-12)


@pytest.mark.parametrize(("count", "seconds"), [(100, 0.1), (1000, 1.0)])
def test_seven_widths_are_solved_to_a_gap_of_zero_in_time(count, seconds):
    problem = large_problem(count, (2, 3, 4, 5, 6, 7, 8))
    times = []  # of this process's own work, so that a busy machine fails nothing
    for _ in range(3):
        start = time.process_time()
        solution = solve_allocation(*problem)
        assert (solution.status, solution.gap) == ("optimal", 0.0)
        times.append(time.process_time() - start)
    assert min(times) < seconds


def test_the_solver_prints_nothing(capfd):
    kernels, costs, limits = large_problem(30, (2, 4, 8))
    turned = Limit("turned", limits[0].coefficients[::-1], limits[0].bound)
    assert solve_allocation(kernels, costs, [*limits, turned]).status == "optimal"
    assert capfd.readouterr() == ("", "")  # CBC reports unasked on programs without whole numbers


def test_when_the_time_is_over_the_answer_tells_its_gap():
    problem = large_problem(5000, (2, 3, 4, 8))
    hasty, proven = solve_allocation(*problem, time_limit=0.0), solve_allocation(*problem)
    assert (hasty.status, proven.status) == ("feasible", "optimal")
    assert hasty.objective * (1 - hasty.gap) <= proven.objective < hasty.objective
    assert 0 < hasty.gap < 0.01
