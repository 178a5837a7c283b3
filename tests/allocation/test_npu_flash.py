"""What kernels take in the flash of an Ethos-U: the form of the estimate, and the budget by it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmpq_tf.allocation.budget import Budget, InfeasibleBudgetError
from bmpq_tf.allocation.kernel import Kernel
from bmpq_tf.allocation.npu_flash import encoded_bytes
from bmpq_tf.allocation.solver import solve_allocation

pytestmark = pytest.mark.quick


def kernel(outputs, window, inputs, *, depthwise=False, candidates=(2, 4, 8), path="kernel"):
    weights = outputs * window * inputs
    return Kernel(path, weights, candidates, channels=outputs, window=window, depthwise=depthwise)


@pytest.mark.parametrize(
    ("one", "bits", "expected"),
    [
        # As many inputs as the multipliers take: the width, and a table of levels.
        (kernel(32, 9, 32), 2, 9216 * 2 // 8 + 32),
        (kernel(64, 1, 64), 4, 4096 * 4 // 8 + 16),
        (kernel(64, 1, 64), 8, 4096 + 32),
        # 432 weights of 3x3 in 12 positions each.
        (kernel(48, 9, 1, depthwise=True), 8, 48 * 12 + 32 + 48),
        # 1 of 4 is no padding: 0.811 bits for each of 256 say where, and a fifth more.
        (kernel(8, 1, 8), 8, 96 + 32),
    ],
)
def test_whole_blocks_take_their_width(one, bits, expected):
    assert encoded_bytes(one, bits) == expected


def test_padding_costs_less_than_weights_and_more_than_nothing():
    whole, padded = kernel(64, 1, 64), kernel(64, 1, 48)
    for bits in (2, 4, 8):
        assert 48 * 64 * bits / 8 + 16 < encoded_bytes(padded, bits) <= encoded_bytes(whole, bits)
    # 3x3 windows of 16 inputs are gone through by window: 12 positions, not 32 inputs.
    assert encoded_bytes(kernel(16, 9, 16), 2) < 16 * 9 * 32 * 2 / 8


@given(
    st.integers(1, 70),
    st.sampled_from([1, 3, 9, 25, 40]),
    st.integers(1, 70),
    st.booleans(),
)
def test_wider_is_never_less_and_nothing_is_less_than_its_width(outputs, window, inputs, depthwise):
    one = kernel(outputs, window, 1 if depthwise else inputs, depthwise=depthwise)
    sizes = [encoded_bytes(one, bits) for bits in range(2, 9)]
    assert all(narrow <= wide for narrow, wide in itertools.pairwise(sizes))
    assert one.weights < 512 or sizes[0] < sizes[2] < sizes[-1]
    assert all(size >= one.weights * bits / 8 for bits, size in enumerate(sizes, start=2))
    assert all(size % 16 == 0 for size in sizes)


def test_a_budget_in_words_and_the_widths_that_it_allows():
    kernels = [
        kernel(32, 9, 32, path="a"),
        kernel(64, 9, 32, path="b"),
        kernel(10, 1, 64, candidates=(8,), path="c"),
    ]
    budget = Budget.parse("16 kB npu flash")
    assert budget == Budget(npu_flash="16 kB") == Budget(npu_flash=16_000)
    assert Budget.parse(str(budget)) == budget
    assert Budget.parse(budget.to_dict()) == budget
    # Cheap to narrow: b. Both at 4 bits would fit as well.
    costs = [[9.0, 5.0, 0.0], [1.0, 0.5, 0.0], [0.0]]
    found = solve_allocation(kernels, costs, budget.limits(kernels))
    assert found.bits == {"a": 8, "b": 2, "c": 8}
    assert budget.holds(kernels, found.bits)
    assert not budget.holds(kernels, {"a": 8, "b": 4, "c": 8})


def test_what_cannot_be_is_said():
    kernels = [kernel(32, 9, 32, path="a"), kernel(10, 1, 64, candidates=(8,), path="c")]
    least = encoded_bytes(kernels[0], 2) + encoded_bytes(kernels[1], 8)
    Budget(npu_flash=least).check(kernels)
    with pytest.raises(InfeasibleBudgetError, match=rf"reaches is {least:,} bytes of NPU flash"):
        Budget(npu_flash=least - 1).check(kernels)
    recurrent = Kernel("lstm/kernel", 100, (2, 4), channels=10)
    with pytest.raises(
        ValueError, match=r"not known how it reads lstm/kernel\. Received: npu_flas"
    ):
        Budget(npu_flash=1000).limits([*kernels, recurrent])
