"""What the converter multiplies into a kernel is found again.

Channel factors, feature factors, both, and dead channels.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmpq_tf.export.converter.origin import scopes
from bmpq_tf.export.kernels.match import KernelIntegers, Match, _factors, channels_first
from bmpq_tf.export.kernels.packing import stored_kernel
from bmpq_tf.export.kernels.storage import Container

pytestmark = pytest.mark.quick


def kernel(seed, bits=4, shape=(5, 7)):
    generator = np.random.default_rng(seed)
    integers = generator.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape).astype(np.int8)
    return KernelIntegers(
        "layer/kernel",
        "layer",
        bits,
        integers,
        generator.uniform(0.01, 1, shape[0]).astype(np.float32),
    )


@given(seed=st.integers(0, 10_000), bits=st.sampled_from([2, 3, 4]), columns=st.booleans())
def test_factors_of_channels_and_features_are_recovered(seed, bits, columns):
    generator = np.random.default_rng(seed + 1)
    ours = kernel(seed, bits)
    row = generator.uniform(0.1, 2, 5) * generator.choice([-1, 1], 5)
    column = generator.uniform(0.1, 2, 7) * generator.choice([-1, 1], 7) if columns else np.ones(7)
    matrix = (
        (row[:, None] * column * ours.scales[:, None] * ours.integers)
        .astype(np.float32)
        .astype(np.float64)
    )
    found_row, found_column = _factors(matrix, ours.integers, ours.scales)
    found_column = np.ones(7) if found_column is None else found_column
    grid = ours.scales[:, None] * ours.integers
    np.testing.assert_allclose(found_row[:, None] * found_column * grid, matrix, rtol=1e-5)


def test_another_kernels_values_do_not_match():
    ours, other = kernel(0), kernel(1)
    assert (
        _factors(
            (other.scales[:, None] * other.integers).astype(np.float64), ours.integers, ours.scales
        )
        is None
    )
    noisy = (
        ours.scales[:, None]
        * ours.integers
        * np.random.default_rng(0).uniform(0.99, 1.01, ours.integers.shape)
    )
    assert _factors(noisy, ours.integers, ours.scales) is None


def test_a_channel_that_folding_silenced_still_matches():
    ours = kernel(0)
    matrix = (ours.scales[:, None] * ours.integers).astype(np.float64)
    matrix[2] = 0
    row, column = _factors(matrix, ours.integers, ours.scales)
    assert row[2] == 0
    assert column is None


def test_a_weight_that_only_a_silenced_channel_uses_is_no_silenced_feature():
    ours = KernelIntegers("k", "k", 2, np.int8([[1, 0, -1], [1, 1, 0]]), np.float32([0.5, 0.25]))
    row, column = _factors(np.float64([[0.5, 0, -0.5], [0, 0, 0]]), ours.integers, ours.scales)
    assert column is None
    np.testing.assert_array_equal(row, [1, 0])


@pytest.mark.parametrize("bits", [2, 4])
def test_a_negative_factor_flips_signs_exactly_even_at_the_lowest_level(bits):
    low = -(2 ** (bits - 1))
    integers = np.int8([[low, 1, 0], [low, 1, 0], [low + 1, 1, 0]])
    ours = KernelIntegers("k", "k", bits, integers, np.float32([0.5, 0.5, 0.5]))
    stored = stored_kernel(
        Match(ours, 0, 0, 0, np.array([1.0, -2.0, -2.0]), None),
        "k",
        (3, 3),
        Container(bits, "weight_only"),
    )
    assert stored.integers.min() >= low
    assert stored.integers.max() <= -low - 1
    assert list(stored.zero_points) == [0, -1, 0]
    value = stored.scales[:, None] * (stored.integers.astype(int) - stored.zero_points[:, None])
    np.testing.assert_array_equal(value, np.array([[0.5], [-1.0], [-1.0]]) * integers)


def test_a_numbered_scope_is_of_the_layer_without_the_number_where_there_is_one():
    layers = {"dense", "dense_1", "query"}
    assert scopes("model_1/dense_1/MatMul", layers) == {"dense"}
    assert scopes("model_1/dense_1_2/MatMul;model_1/attention/query_3/einsum", layers) == {
        "dense_1",
        "query",
    }
    assert scopes("model_1/hidden_dense/MatMul", layers) == set()


@given(shape=st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple), data=st.data())
def test_channels_first_keeps_every_value_with_its_channel(shape, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    values = np.arange(np.prod(shape)).reshape(shape)
    matrix = channels_first(values, (axis,))
    assert matrix.shape[0] == shape[axis]
    for channel in range(shape[axis]):
        np.testing.assert_array_equal(matrix[channel], np.take(values, channel, axis).reshape(-1))
