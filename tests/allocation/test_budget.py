"""Budgets: what people say, what it means, and what they are told when it cannot be."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmpq_tf.allocation.budget import Budget, InfeasibleBudgetError
from bmpq_tf.allocation.kernel import Kernel, container_bits, stored_bytes

pytestmark = pytest.mark.quick

KERNELS = [
    Kernel("stem/kernel", 100, (8,), pinned=True, channels=10),
    Kernel("mid/kernel", 10_000, (2, 4, 8), channels=50),
    Kernel("head/kernel", 100, (8,), pinned=True),
]


@pytest.mark.parametrize(
    ("said", "bits"),
    [
        ("10x", 32 * 10_200 // 10),
        (" 15.4X ", int(32 * 10_200 / 15.4)),
        (8, 32 * 10_200 // 8),
        (2.5, int(32 * 10_200 / 2.5)),
        ("2.5 bits", 25_500),
        ("3bits", 30_600),
        ("4 kB", 32_000),
        ("0.004 MB", 32_000),
        ("1 KiB", 8192),
        (Budget(compression=10, average_bits=3), 30_600),
        ({"average_bits": 3}, 30_600),
        (np.float32(10), 32 * 10_200 // 10),
        ({"weight_bytes": np.int64(4000)}, 32_000),
    ],
)
def test_what_people_say(said, bits):
    assert Budget.parse(said).bits(KERNELS) == bits


@pytest.mark.parametrize(
    "said",
    [
        "",
        "x",
        "fast",
        "10 furlongs",
        "-3x",
        "0x",
        0,
        -1,
        None,
        True,
        "nan",
        float("nan"),
        float("inf"),
        [10],
        "2,5 bits",
        "1,200 kB",
        "64,5 kB flash, 48 kB ram",
    ],
)
def test_what_cannot_be_a_budget_is_refused_with_the_forms(said):
    with pytest.raises(ValueError, match=r"Received: .*'10x' \(compression\), '2.5 bits'"):
        Budget.parse(said)


def test_a_budget_needs_a_limit_that_is_known():
    with pytest.raises(ValueError, match="at least one limit"):
        Budget()
    with pytest.raises(
        ValueError, match=r"Unknown limits in the budget: size. Received: .*Known: compression, "
    ):
        Budget.parse({"size": 10})


@given(st.floats(1.1, 30))
def test_a_budget_reads_back_from_its_plain_data(compression):
    budget = Budget(compression=compression, stored_bytes=100)
    assert Budget.parse(budget.to_dict()) == budget


def test_an_infeasible_budget_names_the_smallest_size_and_who_holds_it_up():
    with pytest.raises(InfeasibleBudgetError) as error:
        Budget.parse("40x").check(KERNELS, "40x")
    said = str(error.value)
    assert "Received: budget='40x'" in said
    with pytest.raises(InfeasibleBudgetError, match=r"Received: budget='40x', which"):
        Budget.parse("40x").check(KERNELS, Budget(compression=40))
    assert "15.11x (2,700 bytes, 2.118 bits)" in said
    assert (
        "'stem/kernel' and 'head/kernel' are pinned at 8 bits; unpin them or loosen the budget"
        in said
    )
    Budget.parse("15.11x").check(KERNELS)  # what it names can be had
    # Unpinned, 4 bits everywhere would not do either.
    wide = [
        dataclasses.replace(kernel, candidates=kernel.candidates if kernel.pinned else (4, 8))
        for kernel in KERNELS
    ]
    with pytest.raises(
        InfeasibleBudgetError,
        match=r"pinned at 8 bits and 4 bits is the narrowest candidate; unpin them, allow narrower",
    ):
        Budget.parse("10x").check(wide)


def test_kernels_that_do_not_train_are_named_not_those_that_hardly_matter():
    frozen = Kernel("backbone/kernel", 100_001, (8,), kept=True)
    with pytest.raises(
        InfeasibleBudgetError,
        match=(
            r"\(100,101 bytes, .*'backbone/kernel' keeps 8 bits, as no gradients reach it; let "
            r"it train"
        ),
    ):
        Budget.parse("40x").check([frozen, Kernel("head/kernel", 400, (2, 8))])
    Budget.parse("100101 B").check([frozen, Kernel("head/kernel", 400, (2, 8))])
    # Rounded up: 5.25 bytes.
    with pytest.raises(InfeasibleBudgetError, match=r"\(6 bytes"):
        Budget.parse("5 B").check([Kernel("head/kernel", 21, (2, 8))])


def test_candidates_that_cannot_be_narrower_are_not_asked_to_be():
    with pytest.raises(
        InfeasibleBudgetError,
        match=r"because no width is narrower than 2 bits; loosen the budget\.$",
    ):
        Budget.parse("40x").check([Kernel("dense/kernel", 400, (2, 8))])


def test_kernels_that_stay_float_are_named():
    with pytest.raises(
        InfeasibleBudgetError, match="'lstm/kernel' stays float at 32 bits; quantize it"
    ):
        Budget.parse("10x").check(
            [Kernel("lstm/kernel", 100, (32,)), Kernel("dense/kernel", 100, (2, 8))]
        )


def test_unknown_macs_are_named():
    with pytest.raises(ValueError, match=r"MACs of .*mid/kernel"):
        Budget(bit_operations=1e6).limits(KERNELS)


@pytest.mark.parametrize(("bits", "container"), [(2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (32, 32)])
def test_containers(bits, container):
    assert container_bits(bits) == container


def test_stored_bytes_count_the_scales():
    assert stored_bytes(KERNELS[1], 3) == 5000 + 12 * 50
    assert stored_bytes(Kernel("float", 10, (32,)), 32) == 40
