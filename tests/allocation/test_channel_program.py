"""Widths and channels together, against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmpq_tf.allocation.channel_program import ChannelKernel, least_bits, solve_channels
from bmpq_tf.allocation.solver import AllocationError

pytestmark = pytest.mark.quick


@st.composite
def problems(draw):
    """A chain of kernels, each reading what the one before makes, and a bound."""
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    groups = draw(st.integers(1, 2))
    levels = [draw(st.integers(1, 3)) for _ in range(groups)]
    kernels = []
    for number in range(groups + 1):
        read = number - 1 if number else None
        made = number if number < groups else None
        shape = tuple(1 if group is None else levels[group] for group in (read, made))
        candidates = tuple(sorted(random.choice([2, 3, 4, 8], random.integers(1, 4), False)))
        costs = random.integers(0, 1000, (len(candidates), *shape)).astype(float)
        weights = random.integers(1, 50, shape).cumsum(0).cumsum(1)
        kernels.append(
            ChannelKernel(f"k{number}", tuple(map(int, candidates)), read, made, costs, weights)
        )
    dropped = [random.integers(0, 1000, count).astype(float).tolist() for count in levels]
    most = sum(int(kernel.weights.max()) * kernel.candidates[-1] for kernel in kernels)
    return kernels, dropped, draw(st.integers(most // 4, most))


def every_choice(kernels, dropped):
    """The bits and the cost of each choice there is."""
    for levels in itertools.product(*(range(len(costs)) for costs in dropped)):
        for picked in itertools.product(*(range(len(kernel.candidates)) for kernel in kernels)):
            bits = total = 0
            for kernel, width in zip(kernels, picked, strict=True):
                here = tuple(
                    0 if group is None else levels[group] for group in (kernel.read, kernel.made)
                )
                bits += kernel.candidates[width] * int(kernel.weights[here])
                total += kernel.costs[(width, *here)]
            total += sum(costs[level] for costs, level in zip(dropped, levels, strict=True))
            yield bits, total


@given(problems())
def test_as_good_as_brute_force_and_never_over_the_bound(problem):
    kernels, dropped, bound = problem
    feasible = [total for bits, total in every_choice(kernels, dropped) if bits <= bound]
    if not feasible:
        with pytest.raises(AllocationError, match="no widths and channels"):
            solve_channels(kernels, dropped, bound)
        return
    found = solve_channels(kernels, dropped, bound)
    assert found.status == "optimal"
    assert found.objective == pytest.approx(min(feasible))
    taken = sum(
        found.bits[kernel.path]
        * int(
            kernel.weights[
                tuple(0 if one is None else found.levels[one] for one in (kernel.read, kernel.made))
            ]
        )
        for kernel in kernels
    )
    assert taken <= bound


@given(problems())
def test_the_least_bits_are_the_least(problem):
    kernels, dropped, _ = problem
    assert least_bits(kernels) == min(bits for bits, _ in every_choice(kernels, dropped))
