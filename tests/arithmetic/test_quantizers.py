"""The quantizer's range, its error, its gradients; the scale rules."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bmpq_tf.arithmetic import quantizers, scales

pytestmark = pytest.mark.quick

weights_of = st.lists(
    st.floats(-4, 4, width=32, allow_subnormal=False), min_size=6, max_size=6
).map(lambda values: np.float32(values).reshape(3, 2))


@pytest.mark.parametrize(
    ("bits", "low", "high"), [(2, -2, 1), (3, -4, 3), (4, -8, 7), (7, -64, 63), (8, -127, 127)]
)
def test_the_range_is_twos_complement_and_narrow_at_8_bits(bits, low, high):
    assert [float(end) for end in quantizers.level_range(bits)] == [low, high]


levels_of = st.sampled_from(quantizers.TWO_BIT_LEVELS)


def test_symmetric_levels_are_four_half_steps_at_2_bits_and_other_widths_as_they_are():
    weights = np.linspace(-3, 3, 61, dtype="float32")
    steps = quantizers.quantize(weights, 1.0, 2, "symmetric").numpy()
    assert sorted(set(steps)) == [-1.5, -0.5, 0.5, 1.5]
    nearest = np.abs(weights[:, None] - [-1.5, -0.5, 0.5, 1.5]).min(axis=1)
    np.testing.assert_allclose(np.abs(steps - weights), nearest, atol=1e-6)
    for bits in (3, 4, 8):
        np.testing.assert_array_equal(
            quantizers.quantize(weights, 0.1, bits, "symmetric"),
            quantizers.quantize(weights, 0.1, bits),
        )


@given(weights=weights_of, bits=st.integers(2, 8), levels=levels_of)
def test_max_abs_clips_nothing_and_errs_by_half_a_step_at_most(weights, bits, levels):
    scale = scales.max_abs(tf.constant(weights), bits, (-1,), levels)
    error = np.abs(quantizers.quantization_error(weights, scale, bits, levels))
    assert np.all(error <= 0.5 * np.asarray(scale) * (1 + 1e-5) + 1e-12)


@given(weights=weights_of, bits=st.integers(2, 8), levels=levels_of)
def test_what_is_on_the_grid_stays(weights, bits, levels):
    scale = scales.statistical(tf.constant(weights), bits, (-1,), levels)
    once = quantizers.quantize(weights, scale, bits, levels) * scale
    np.testing.assert_array_equal(
        quantizers.quantize(once, scale, bits, levels),
        quantizers.quantize(weights, scale, bits, levels),
    )


@given(
    weights=weights_of,
    bits=st.integers(2, 8),
    rule=st.sampled_from([*scales.RULES.values(), scales.least_squares, scales.initial]),
    rows=st.sampled_from([0, None]),
)
def test_scales_are_positive_even_for_channels_of_zeros_and_for_no_weights(
    weights, bits, rule, rows
):
    weights = weights[:rows].copy()
    weights[:, 0] = 0
    scale = rule(tf.constant(weights), bits, (-1,))
    assert scale.shape == (1, 2)
    assert np.all(np.asarray(scale) > 0)
    assert np.all(np.isfinite(quantizers.quantize(weights, scale, bits)))


def test_at_2_bits_max_abs_uses_the_lowest_level():
    weights = tf.constant([[-1.0], [0.4], [0.1]])
    scale = scales.max_abs(weights, 2, (-1,))
    assert quantizers.quantize(weights, scale, 2).numpy().min() == -2
    assert float(scale[0, 0]) == pytest.approx(0.5)


def test_the_statistical_rule_is_lsqs_start_capped_at_max_abs():
    weights = tf.constant(np.random.default_rng(0).standard_normal((500, 1)), tf.float32)
    mean = float(tf.reduce_mean(tf.abs(weights)))
    assert float(scales.statistical(weights, 2, (-1,))[0, 0]) == pytest.approx(
        min(2 * mean, float(scales.max_abs(weights, 2, (-1,))[0, 0]))
    )
    assert float(scales.statistical(weights, 8, (-1,))[0, 0]) == pytest.approx(
        float(scales.max_abs(weights, 8, (-1,))[0, 0])
    )


@settings(max_examples=15)
@given(weights=weights_of, bits=st.integers(2, 8), axes=st.sampled_from([(-1,), ()]))
def test_no_rule_errs_less_than_least_squares(weights, bits, axes):
    def error(rule):
        squares = np.square(
            quantizers.quantization_error(weights, rule(tf.constant(weights), bits, axes), bits)
        )
        return squares.sum(tuple(scales.reduced_axes(2, axes)))

    assert np.all(
        error(scales.least_squares)
        <= np.minimum(error(scales.statistical), error(scales.max_abs)) * (1 + 1e-5) + 1e-12
    )


@pytest.mark.parametrize("bits", [2, 4])
def test_least_squares_finds_the_best_scale(bits):
    weights = tf.constant(np.random.default_rng(0).standard_normal((1000, 1)), tf.float32)
    tried = np.linspace(0.05, 4, 800)
    least = min(
        float(np.square(quantizers.quantization_error(weights, scale, bits)).sum())
        for scale in tried
    )
    assert (
        np.square(
            quantizers.quantization_error(weights, scales.least_squares(weights, bits, (-1,)), bits)
        ).sum()
        < 1.01 * least
    )


def test_gradient_is_straight_through_inside_and_zero_outside():
    weights = tf.Variable([-3.0, -0.6, 0.2, 0.9, 5.0])
    with tf.GradientTape() as tape:
        out = quantizers.fake_quantize(weights, tf.ones([1]), 2)
    np.testing.assert_array_equal(out, [-2, -1, 0, 1, 1])
    upstream = tf.constant([1.0, 2.0, 3.0, 4.0, 5.0])
    np.testing.assert_array_equal(tape.gradient(out, weights, upstream), [0, 2, 3, 4, 0])


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_a_weight_that_sets_the_scale_has_a_gradient(bits):
    random = np.random.default_rng(0)
    weights = tf.constant(random.standard_normal((16, 200)).astype("float32"))
    scale = scales.max_abs(weights, bits, (0,))
    with tf.GradientTape() as tape:
        tape.watch(weights)
        total = tf.reduce_sum(quantizers.fake_quantize(weights, scale, bits))
    np.testing.assert_array_equal(tape.gradient(total, weights), np.ones((16, 200)))


def test_gradients_of_symmetric_levels_are_those_of_their_own_range():
    weights, scale = tf.Variable([-3.0, -1.4, 0.2, 1.2, 5.0]), tf.Variable([1.0])
    with tf.GradientTape() as tape:
        out = quantizers.fake_quantize(weights, scale, 2, levels="symmetric")
    np.testing.assert_array_equal(out, [-1.5, -1.5, 0.5, 1.5, 1.5])
    upstream = tf.constant([1.0, 2.0, 3.0, 4.0, 5.0])
    to_weights, to_scale = tape.gradient(out, [weights, scale], upstream)
    np.testing.assert_array_equal(to_weights, [0, 2, 3, 4, 0])
    # Clipped: q. Inside: q - w/S.
    expected = 1 * -1.5 + 2 * -0.1 + 3 * 0.3 + 4 * 0.3 + 5 * 1.5
    np.testing.assert_allclose(to_scale, [expected], rtol=1e-5)


def test_gradient_of_the_scale_is_lsqs_and_sums_over_what_shares_it():
    weights = tf.constant([[-3.0, 0.3], [0.2, 0.4]])
    scale = tf.Variable([[1.0, 0.5]])
    upstream = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        out = quantizers.fake_quantize(weights, scale, 2)
    # Clipped: q = -2. Inside: q - w/S.
    expected = [[1 * -2 + 3 * (0 - 0.2), 2 * (1 - 0.6) + 4 * (1 - 0.8)]]
    np.testing.assert_allclose(tape.gradient(out, scale, upstream), expected, rtol=1e-5)


def test_a_learned_scale_stays_positive_and_moves_relatively():
    base, gain = tf.constant([0.01, 1.0]), tf.Variable([-50.0, 0.5])
    with tf.GradientTape() as tape:
        scale = scales.learned(base, gain)
    assert np.all(np.asarray(scale) > 0)
    np.testing.assert_allclose(tape.gradient(scale, gain), scale, rtol=1e-6)


def test_the_width_is_a_tensor_so_that_a_change_needs_no_new_trace():
    traces = []

    @tf.function
    def quantized(weights, bits):
        traces.append(1)
        return quantizers.fake_quantize(weights, tf.ones([1]), bits)

    outputs = [
        quantized(tf.constant([5.0]), tf.constant(bits)).numpy()[0] for bits in (2.0, 3.0, 4.0)
    ]
    assert outputs == [1, 3, 5]
    assert len(traces) == 1
