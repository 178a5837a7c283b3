"""The activation quantizer: its grid, its ends, its gradients, the range it starts with."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from bmpq_tf.arithmetic import activations

pytestmark = pytest.mark.quick

values_of = st.lists(st.floats(-8, 8, width=32, allow_subnormal=False), min_size=6, max_size=6).map(
    np.float32
)
clips = st.floats(0.015625, 128, width=32)
widths = st.sampled_from([2, 4, 8])


@given(values=values_of, clip=clips, bits=widths, share=st.floats(0, 1))
def test_values_lie_on_the_grid_keep_their_order_and_stay_there(values, clip, bits, share):
    zero_point = np.float32(round(share * (2**bits - 1)))
    step, low, high = (np.asarray(x) for x in activations.ends(tf.constant(clip), zero_point, bits))
    values = np.sort(np.concatenate([values, np.float32([0, -1e9, 1e9])]))
    integers = np.asarray(activations.quantize(values, clip, zero_point, bits))
    once = np.asarray(activations.fake_quantize(values, clip, zero_point, bits))
    np.testing.assert_array_equal(integers, np.round(integers))
    np.testing.assert_array_equal(once, integers * step)
    assert np.all(np.diff(once) >= 0)
    assert (once[0], once[-1]) == (low, high)
    assert high - low == pytest.approx(clip, rel=1e-5)
    assert 0 in once
    inside = (values >= low) & (values <= high)
    assert np.all(np.abs(once - values)[inside] <= 0.5 * step * (1 + 1e-4))
    np.testing.assert_array_equal(activations.fake_quantize(once, clip, zero_point, bits), once)


def test_pact_at_2_bits_by_hand_halves_to_even():
    values = tf.constant([-1.0, 0.0, 0.5, 0.9, 1.5, 2.5, 3.0, 7.0])
    np.testing.assert_array_equal(
        activations.fake_quantize(values, tf.constant(3.0), 0.0, 2), [0, 0, 0, 1, 2, 2, 3, 3]
    )


@given(values=values_of, clip=clips, bits=widths, share=st.floats(0, 1))
def test_trainings_own_rounding_differs_at_ties_alone(values, clip, bits, share):
    zero_point = np.float32(round(share * (2**bits - 1)))
    step, low, high = (np.asarray(x) for x in activations.ends(tf.constant(clip), zero_point, bits))
    exact = np.asarray(activations.fake_quantize(values, clip, zero_point, bits))
    in_training = np.asarray(activations.fake_quantize(values, clip, zero_point, bits, None))
    steps = np.clip(values.astype(np.float64), low, high) / np.float64(step)
    tie = np.abs(np.abs(steps - np.round(steps)) - 0.5) < 1e-4
    np.testing.assert_allclose(in_training[~tie], exact[~tie], rtol=0, atol=1e-5 * clip)
    assert np.all(np.abs(in_training - exact) <= 1.001 * step)


@pytest.mark.parametrize("rounding", [tf.round, None])
@pytest.mark.parametrize("nothing", [np.nan, np.inf])
def test_what_is_not_finite_is_not_hidden(nothing, rounding):
    out = activations.fake_quantize(tf.constant([nothing, 1.0]), tf.constant(2.0), 0.0, 8, rounding)
    assert np.isnan(out[0]) or float(out[0]) == 2


def test_gradients_are_pacts_and_each_end_of_a_signed_range_moves_by_its_share():
    upstream = tf.constant([1.0, 2.0, 4.0, 8.0, 16.0])
    values, clip = tf.Variable([-5.0, -0.5, 0.4, 3.0, 9.0]), tf.Variable(3.0)
    with tf.GradientTape() as tape:
        out = activations.fake_quantize(values, clip, tf.constant(0.0), 2)
    to_values, to_clip = tape.gradient(out, [values, clip], upstream)
    # The clip itself belongs to what is clipped: PACT has 1 where x >= alpha.
    np.testing.assert_array_equal(to_values, [0, 0, 4, 0, 0])
    assert float(to_clip) == 8 + 16
    with tf.GradientTape() as tape:
        out = activations.fake_quantize(values, clip, tf.constant(1.0), 2)  # from -1 to 2
    to_values, to_clip = tape.gradient(out, [values, clip], upstream)
    np.testing.assert_array_equal(to_values, [0, 2, 4, 0, 0])
    assert float(to_clip) == pytest.approx((8 + 16) * 2 / 3 - 1 * 1 / 3)


@pytest.mark.parametrize(
    ("zero_point", "inside", "to_end"),
    [
        # Half a step is 0.0078. PACT does what a ReLU does at zero.
        (None, [0, 0, 0, 8, 16, 0, 0], 32 + 64),
        (0.0, [0, 0, 4, 8, 16, 32, 0], 64),
        # From -0.8 to 3.2.
        (51.0, [0, 0, 4, 8, 16, 0, 0], (32 + 64) * 0.8 - (1 + 2) * 0.2),
    ],
)
def test_from_8_bits_on_what_pact_rounds_to_an_end_counts_as_clipped(zero_point, inside, to_end):
    values, clip = tf.Variable([-3.0, -0.9, 0.001, 0.01, 2.0, 3.995, 9.0]), tf.Variable(4.0)
    upstream = tf.constant([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    with tf.GradientTape() as tape:
        out = activations.fake_quantize(values, clip, zero_point, 8, None)
    to_values, to_clip = tape.gradient(out, [values, clip], upstream)
    np.testing.assert_array_equal(to_values, inside)
    assert float(to_clip) == pytest.approx(to_end)


@pytest.mark.parametrize(
    ("base", "upstream", "gradient"),
    [(5.0, -1.0, -2.5), (5.0, 1.0, 2.5), (7.0, -1.0, 0.0), (7.0, 1.0, 3.5)],
)
def test_a_clip_at_its_limit_moves_only_back(base, upstream, gradient):
    log_clip = tf.Variable(0.0)
    with tf.GradientTape() as tape:
        out = activations.learned_clip(log_clip, base, share=0.5, limit=6.0)
    assert float(out) == min(base, 6.0)
    assert float(tape.gradient(out, log_clip, tf.constant(upstream))) == gradient


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 8])
def test_the_first_range_errs_least_among_the_shares_of_the_whole_one(bits, signed):
    values = np.random.default_rng(0).standard_normal(2000).astype("float32")
    values = values if signed else np.maximum(values, 0)
    clip, zero_point = activations.first_range(tf.constant(values), bits, signed)
    whole = values.max() - min(values.min(), 0)

    def error(share):
        return float(
            np.mean(
                (
                    np.asarray(activations.fake_quantize(values, share * whole, zero_point, bits))
                    - values
                )
                ** 2
            )
        )

    assert error(float(clip) / whole) <= min(error(share) for share in np.arange(1, 17) / 16) * (
        1 + 1e-5
    )
    # 2 bits pay for the tails with everything else, 8 bits can have them.
    assert (float(clip) < 0.8 * whole) == (bits == 2)
    assert (float(zero_point) > 0) is signed


def test_a_first_range_is_of_what_a_bounded_relu_gives_and_is_kept():
    values = np.random.default_rng(0).uniform(-9, 9, 500).astype("float32")
    cut = np.clip(values, 0, 6)
    first = np.asarray(activations.first_range(values, 4, False, 6.0))
    np.testing.assert_array_equal(first, activations.first_range(cut, 4, False))
    none, kept = tf.zeros(2), tf.constant([2.0, 0.0])
    np.testing.assert_array_equal(activations.range_of(none, values, 4, False, 6.0), first)
    np.testing.assert_array_equal(activations.range_of(kept, values, 4, False, 6.0), kept)


@pytest.mark.parametrize("values", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_values_that_give_no_range_say_so(values):
    assert not np.any(activations.first_range(tf.constant(values), 4, True))
