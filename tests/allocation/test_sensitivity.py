"""The estimates that the allocation goes by."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from measurements import measured

from bmpq_tf.allocation.sensitivity import (
    OBJECTIVES,
    Measurement,
    estimate_costs,
    told_sensitivity,
    weight_costs,
)
from bmpq_tf.arithmetic import quantizers, scales

pytestmark = pytest.mark.quick


def joint_cost(weights, gradient, bits) -> float:
    """`sum_p |g_p| |Q_b(w_p) - w_p|`, one scale a column."""
    error = quantizers.quantization_error(
        weights, scales.statistical(tf.constant(weights), bits, (-1,)), bits
    )
    return float(np.sum(np.abs(gradient) * np.abs(error)))


@given(seed=st.integers(0, 10_000), objective=st.sampled_from(OBJECTIVES))
def test_costs_do_not_increase_with_the_width(seed, objective):
    values = estimate_costs(measured(seed), range(2, 9), objective)
    assert all(np.isfinite(values))
    assert all(wide <= narrow for narrow, wide in itertools.pairwise(values))
    assert values[-1] < values[0]


def test_the_factorised_form_equals_the_joint_one_where_gradients_share_a_size():
    kernel = measured()
    signs = np.where(np.random.default_rng(1).random(kernel.weights.shape) < 0.5, -1.0, 1.0)
    gradient = (signs * kernel.gradient_abs).astype("float32")
    assert joint_cost(kernel.weights, gradient, 3) == pytest.approx(
        estimate_costs(kernel, [3])[0], rel=1e-5
    )


def test_the_squared_objective_is_what_it_says():
    kernel = Measurement(
        "k",
        np.float32([[1.0], [0.4], [-0.4]]),
        np.float32([[2.0]]),
        np.float32([[4.0]]),
        0.0,
        (-1,),
        rule="max_abs",
    )
    # Scale 1 at 2 bits: the integers are 1, 0 and 0.
    assert estimate_costs(kernel, [2], "squared")[0] == pytest.approx(
        4 * (0.4**2 + 0.4**2), rel=1e-5
    )
    assert estimate_costs(kernel, [2], "first_order")[0] == pytest.approx(2 * (0.4 + 0.4), rel=1e-5)


def test_the_joint_objective_weighs_each_weight_by_its_own_gradient():
    kernel = measured()
    gradient = np.random.default_rng(1).random(kernel.weights.shape)
    told = estimate_costs(
        dataclasses.replace(kernel, weight_gradient_abs=gradient), [2, 3], "joint"
    )
    assert told == pytest.approx(
        [joint_cost(kernel.weights, gradient, bits) for bits in (2, 3)], rel=1e-5
    )
    with pytest.raises(
        ValueError, match=r"objective='joint' for 'kernel'. .*track_sensitivity=\"joint\""
    ):
        estimate_costs(dataclasses.replace(kernel, weight_gradient_abs=None), [2], "joint")


def test_costs_are_in_proportion_to_the_gradients():
    assert estimate_costs(measured(gain=1.0), [2, 4]) != estimate_costs(measured(gain=3.0), [2, 4])
    kernel = measured()
    tripled = Measurement(
        "k", kernel.weights, 3 * kernel.gradient_abs, 9 * kernel.gradient_square, 0.1, (-1,)
    )
    assert told_sensitivity(tripled) == pytest.approx(3 * told_sensitivity(kernel), rel=1e-6)
    assert told_sensitivity(tripled, "squared") == pytest.approx(
        9 * told_sensitivity(kernel, "squared"), rel=1e-6
    )


@pytest.mark.parametrize("objective", ["first_order", "squared"])
def test_costs_of_weights_sum_to_the_kernels_and_0_bits_cost_all_of_them(objective):
    kernel = measured()
    (whole,) = estimate_costs(kernel, [3], objective)
    assert weight_costs(kernel, 3, objective).sum() == pytest.approx(whole, rel=1e-5)
    gradients = kernel.gradient_square if objective == "squared" else kernel.gradient_abs
    sizes = np.square(kernel.weights) if objective == "squared" else np.abs(kernel.weights)
    np.testing.assert_allclose(weight_costs(kernel, 0, objective), gradients * sizes, rtol=1e-5)


def test_an_objective_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"Received: objective='Squared'. Known: first_order,"):
        estimate_costs(measured(0), (2, 4), "Squared")
