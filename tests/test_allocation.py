"""The integer program against brute force, and against optima worked out by hand at the budget's edges."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmpq_tf.allocation import allocate
from bmpq_tf.budget import Budget, InfeasibleBudgetError, Kernel, Limit, parameter_bits

widths = st.lists(st.integers(2, 8), min_size=1, max_size=4, unique=True).map(lambda values: tuple(sorted(values)))
cost = st.floats(0, 1e6, allow_subnormal=False)


@st.composite
def problems(draw):
    count = draw(st.integers(1, 6))
    kernels = [Kernel(f"k{i}", draw(st.integers(1, 10_000)), draw(widths)) for i in range(count)]
    costs = [sorted((draw(cost) for _ in kernel.candidates), reverse=True) for kernel in kernels]
    return kernels, costs, draw(st.floats(2, 8))


@settings(max_examples=150)
@given(problem=problems())
def test_as_good_as_brute_force_and_never_over_budget(problem):
    kernels, costs, average = problem
    budget = Budget(average_bits=average)
    bound = budget.bits(kernels)
    feasible = [
        sum(row[b] for row, b in zip(costs, picked, strict=True))
        for picked in itertools.product(*(range(len(kernel.candidates)) for kernel in kernels))
        if sum(kernel.weights * kernel.candidates[b] for kernel, b in zip(kernels, picked, strict=True)) <= bound
    ]
    if not feasible:
        with pytest.raises(InfeasibleBudgetError):
            budget.check(kernels)
        return
    budget.check(kernels)
    solution = allocate(kernels, costs, budget.limits(kernels))
    assert solution.status == "optimal"
    assert parameter_bits(kernels, solution.bits) <= bound
    spread = max(max(row) - min(row) for row in costs)
    assert solution.objective <= min(feasible) + 1e-9 * spread


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
    solution = allocate(KERNELS, COSTS, Budget(weight_bytes=bits / 8).limits(KERNELS))
    assert (solution.bits["a"], solution.bits["b"]) == expected
    assert solution.status == "optimal"


def test_several_limits_hold_at_once():
    macs = [Kernel("a", 100, (2, 4, 8), macs=1000), Kernel("b", 300, (2, 4, 8), macs=10)]
    budget = Budget(weight_bytes=3200 / 8, bit_operations=32 * (1000 * 4 + 10 * 8))
    budget.check(macs)
    solution = allocate(macs, COSTS, budget.limits(macs))
    assert solution.bits == {"a": 4, "b": 8}


def test_pinned_and_float_kernels_count():
    kernels = [Kernel("pinned", 100, (8,), pinned=True), Kernel("open", 100, (2, 4, 8)), Kernel("float", 10, (32,))]
    limits = Budget(weight_bytes=(800 + 400 + 320) / 8).limits(kernels)
    assert allocate(kernels, [[0.0], [2.0, 1.0, 0.0], [0.0]], limits).bits == {"pinned": 8, "open": 4, "float": 32}


def test_the_same_input_gives_the_same_answer_where_many_are_as_good():
    kernels = [Kernel(str(i), 100, (2, 4)) for i in range(12)]
    limits = Budget(average_bits=3).limits(kernels)
    answers = [allocate(kernels, [[1.0, 0.0]] * 12, limits).bits for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]


def test_a_cost_that_is_not_finite_never_reaches_the_solver():
    with pytest.raises(ValueError, match=r"not finite.*kernel 'b'"):
        allocate(KERNELS, [COSTS[0], [float("nan"), 1.0, 0.0]], Budget(average_bits=4).limits(KERNELS))


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="a cost for each candidate"):
        allocate(KERNELS, COSTS[:1], [])
    with pytest.raises(ValueError, match="not over these kernels"):
        allocate(KERNELS, COSTS, [Limit("bits", ((1, 2, 3),), 3)])


def test_a_hundred_kernels_and_four_widths_take_under_half_a_second():
    generator = np.random.default_rng(0)
    kernels = [Kernel(str(i), int(generator.integers(100, 100_000)), (2, 3, 4, 8)) for i in range(100)]
    costs = [[kernel.weights * generator.random() * 4.0**-bits for bits in kernel.candidates] for kernel in kernels]
    limits = Budget(average_bits=3.3).limits(kernels)
    times = []  # of this process's own work, so that a busy machine fails nothing
    for _ in range(3):
        start = time.process_time()
        assert allocate(kernels, [sorted(row, reverse=True) for row in costs], limits).status == "optimal"
        times.append(time.process_time() - start)
    assert min(times) < 0.5
