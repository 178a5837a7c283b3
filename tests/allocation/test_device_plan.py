"""Budgets of flash and RAM against every assignment there is."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmpq_tf.allocation.budget import Budget, InfeasibleBudgetError
from bmpq_tf.allocation.device_plan import DevicePlan, KernelForm
from bmpq_tf.allocation.kernel import Kernel
from bmpq_tf.allocation.solver import AllocationError, solve_allocation
from bmpq_tf.training import device_budget

pytestmark = pytest.mark.quick

WIDTHS = (2, 3, 8)
PLANNED, PERSISTENT, FLASH = 1000, 500, 2000
TABLES = {2: 84, 3: 88}


@st.composite
def plans(draw):
    """A plan of up to four kernels: narrow ones are unpacked, or not, and may share tables."""
    forms = {}
    for number in range(draw(st.integers(1, 4))):
        count = draw(st.integers(100, 4000))
        narrow = {
            bits: KernelForm(
                flash=count * bits // 8 + 112,
                shared_table=bits if draw(st.booleans()) else None,
                planned=PLANNED + draw(st.sampled_from([0, count])),
                persistent=draw(st.sampled_from([0, 16, 208])),
                planning=draw(st.sampled_from([0, 96, 500])),
            )
            for bits in WIDTHS[:2]
        }
        forms[f"k{number}"] = {**narrow, 8: KernelForm(count, None, PLANNED, 0)}
    return DevicePlan(FLASH, PLANNED, PERSISTENT, "CONV_2D of layer 'first'", TABLES, forms)


@given(plans(), st.integers(2000, 20000), st.integers(1200, 8000), st.data())
def test_the_best_widths_within_both_are_found_or_there_are_none(plan, flash, ram, data):
    kernels = [Kernel(path, 100, WIDTHS) for path in plan.forms]
    costs = [[data.draw(st.integers(5, 9)), data.draw(st.integers(1, 5)), 0.0] for _ in kernels]
    budget = Budget(flash=flash, ram=ram)

    def fits(bits):
        return plan.flash_bytes(bits) <= flash and plan.arena_bytes(bits) <= ram

    assignments = [
        dict(zip(plan.forms, picked, strict=True))
        for picked in itertools.product(WIDTHS, repeat=len(kernels))
    ]
    possible = [bits for bits in assignments if fits(bits)]
    if not possible:
        with pytest.raises(InfeasibleBudgetError):
            device_budget.check(kernels, budget, plan, None)
        return
    device_budget.check(kernels, budget, plan, None)
    found = device_budget.solve_with_tables(kernels, costs, budget, plan, 60.0)
    assert fits(found.bits)
    assert budget.holds(kernels, found.bits, plan)

    def cost(bits):
        return sum(
            row[WIDTHS.index(width)] for row, width in zip(costs, bits.values(), strict=True)
        )

    assert found.objective == pytest.approx(min(map(cost, possible)))


@given(plans(), st.data())
def test_what_is_not_proven_for_every_set_of_tables_is_not_called_optimal(plan, data):
    kernels = [Kernel(path, 100, WIDTHS) for path in plan.forms]
    budget = Budget(flash=10**6)
    sets = list(plan.table_sets(kernels))
    late = data.draw(st.integers(0, len(sets) - 1))
    # Its own gap tells nothing of the set that was late.
    own = data.draw(st.sampled_from([("optimal", 0.0), ("feasible", 0.1)]))
    calls = itertools.count()

    def solve(*given, **options):
        if next(calls) == late:
            raise AllocationError("the time ran out", proven=False)
        found = solve_allocation(*given, **options)
        return dataclasses.replace(found, status=own[0], gap=own[1])

    costs = [[2.0, 1.0, 0.0] for _ in kernels]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_budget, "solve_allocation", solve)
        if len(sets) == 1:
            with pytest.raises(AllocationError):
                device_budget.solve_with_tables(kernels, costs, budget, plan, 60.0)
            return
        found = device_budget.solve_with_tables(kernels, costs, budget, plan, 60.0)
    assert (found.status, found.gap) == ("feasible", math.inf)


@given(plans())
def test_the_smallest_file_that_an_error_tells_is_the_smallest_there_is(plan):
    kernels = [Kernel(path, 100, WIDTHS) for path in plan.forms]
    smallest = min(
        plan.flash_bytes(dict(zip(plan.forms, picked, strict=True)))
        for picked in itertools.product(WIDTHS, repeat=len(kernels))
    )
    for less in (1, smallest - 1):
        with pytest.raises(InfeasibleBudgetError, match=f"takes {smallest:,} bytes, 2,000 of"):
            device_budget.check(kernels, Budget(flash=less), plan, None)


@pytest.mark.parametrize("proven", [[True], [False], [True, False], [False, True]])
def test_a_budget_is_refused_where_it_is_proven_that_nothing_meets_it(proven, monkeypatch):
    forms = {"k": {width: KernelForm(100 * width, None, PLANNED, 0) for width in WIDTHS}}
    answers = iter(proven)
    plan = DevicePlan(FLASH, PLANNED, PERSISTENT, "CONV_2D of layer 'first'", TABLES, forms)

    def unsolved(*given, **options):
        raise AllocationError("none", proven=next(answers, True))

    monkeypatch.setattr(device_budget, "solve_allocation", unsolved)
    monkeypatch.setattr(DevicePlan, "table_sets", lambda *_: [frozenset()] * len(proven))
    kernels = [Kernel("k", 100, WIDTHS)]
    expected = InfeasibleBudgetError if all(proven) else AllocationError
    with pytest.raises(expected, match=r"not all at once|none"):
        device_budget.check(kernels, Budget(flash=5000), plan, None)


def test_without_a_plan_flash_and_ram_are_not_judged():
    kernels = [Kernel("k", 1000, WIDTHS)]
    budget = Budget(flash=10, ram=10, average_bits=3)
    assert budget.holds(kernels, {"k": 3})
    assert not budget.holds(kernels, {"k": 8})
    assert [limit.name for limit in budget.limits(kernels)] == ["parameter bits"]


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("64 kB flash, 48 kB ram", {"flash": 64e3, "ram": 48e3}),
        ("64KiB flash and 10x", {"flash": 65536, "compression": 10}),
        ("1 MB RAM", {"ram": 1e6}),
        ("2.5 bits, 900 B stored", {"average_bits": 2.5, "stored_bytes": 900}),
    ],
)
def test_the_words_of_a_data_sheet(text, limits):
    budget = Budget.parse(text)
    assert budget.to_dict() == limits
    assert Budget.parse(str(budget)) == budget


@given(st.integers(1, 2**40))
def test_a_budget_that_is_told_is_the_one_that_was_given(size):
    assert Budget.parse(str(Budget(weight_bytes=size))) == Budget(weight_bytes=size)


def test_sizes_may_be_text():
    assert Budget(flash="64 kB", ram="48 kB") == Budget.parse("64 kB flash, 48 kB ram")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("64 kB flash, 32 kB flash", "limits the same twice"),
        ("64 kB rom", "Unknown unit 'kb rom'"),
        ("64 flash", "Unknown unit 'flash'"),
        ("10x flash", "Unknown unit 'x flash'"),
        ("64 kB flash,", "Cannot read the budget"),
        ("-1 kB ram", "must be positive"),
    ],
)
def test_what_cannot_be_read_is_told(text, words):
    with pytest.raises(ValueError, match=words):
        Budget.parse(text)


def test_a_size_is_asked_for():
    with pytest.raises(ValueError, match=r"A size in bytes is asked for\. Received: flash='10x'"):
        Budget(flash="10x")
