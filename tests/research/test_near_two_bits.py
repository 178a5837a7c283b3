"""What may help kernels of 2 bits: other levels, gradients, decay, statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmpq_research.experiments import near_two_bits
from bmpq_research.experiments.near_two_bits import NarrowDecay, quantized_so, two_bit_levels
from bmpq_tf import quantize_model
from bmpq_tf.arithmetic import quantizers
from bmpq_tf.model.kernels import model_kernels

WEIGHTS = np.linspace(-2.2, 2.2, 45, dtype="float32")[:, None]
SCALE = np.full((1, 1), 0.5, "float32")


def quantized(bits: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The values, and the gradients of their sum with regard to the weights and to the scale."""
    weights, scale = tf.Variable(WEIGHTS), tf.Variable(SCALE)
    seen = []
    with tf.GradientTape() as tape:
        values = quantizers.fake_quantize(
            weights, scale, bits, lambda gradient: seen.append(gradient) or []
        )
        loss = tf.reduce_sum(values)
    to_weights, to_scale = tape.gradient(loss, [weights, scale])
    (upstream,) = seen
    assert (upstream.numpy() == 1).all()
    return values.numpy(), to_weights.numpy(), float(to_scale[0, 0])


def test_ternary_kernels_of_2_bits_hold_three_levels_and_others_their_own():
    with quantized_so("ternary", "clipped"):
        values, to_weights, to_scale = quantized(2)
        four_bits = quantized(4)
    assert sorted(set(values.ravel() / 0.5)) == [-1, 0, 1]
    inside = WEIGHTS.clip(-0.5, 0.5) == WEIGHTS
    np.testing.assert_array_equal(to_weights, inside.astype("float32"))
    expected = np.where(inside, values - WEIGHTS, values).sum() / 0.5
    assert to_scale == pytest.approx(expected, abs=1e-4)
    for ours, librarys in zip(four_bits, quantized(4), strict=True):
        np.testing.assert_allclose(ours, librarys, atol=1e-5)


def test_binary_kernels_hold_two_levels():
    with quantized_so("binary", "clipped"):
        weights = tf.constant(WEIGHTS)
        values = quantizers.fake_quantize(weights, SCALE, 2, levels=two_bit_levels("binary"))
    assert sorted(set(values.numpy().ravel())) == [-0.25, 0.25]
    np.testing.assert_array_equal(values > 0, WEIGHTS >= 0)


def test_gradients_pass_beyond_the_range_of_2_bits_alone():
    with quantized_so("twos_complement", "through"):
        assert (quantized(2)[1] == 1).all()
        assert (quantized(3)[1] == 0).any()
        changed = quantized(2)
    values, _, to_scale = quantized(2)
    np.testing.assert_array_equal(changed[0], values)
    assert changed[2] == pytest.approx(to_scale, abs=1e-4)


@pytest.mark.parametrize(("bits", "share"), [(2, 0.0), (2, 0.5), (4, 0.0)])
def test_kernels_of_2_bits_get_a_share_of_the_decay(bits, share):
    model = quantize_model(
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), (2, 4), pin=None
    )
    (state,) = model_kernels(model)
    state.quantizer.set_width(bits, state.variable)
    before = state.variable.numpy()
    model.compile(keras.optimizers.SGD(0.1, weight_decay=0.1), "mse")
    # Zeros in, zeros out: no gradient moves the kernel.
    data = np.zeros((8, 4), "float32"), np.zeros((8, 3), "float32")
    model.fit(*data, batch_size=4, epochs=2, verbose=0, callbacks=[NarrowDecay(share)])
    decay = 0.1 * 0.1 * (share if bits == 2 else 1.0)
    np.testing.assert_allclose(state.variable.numpy(), before * (1 - decay) ** 4, rtol=2e-3)


def test_statistics_are_means_over_the_batches():
    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
    data = np.random.default_rng(0).normal(5.0, 2.0, (40, 3)).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices((data, data)).batch(10)
    near_two_bits.estimate_batch_statistics(model, batches, 4)
    (layer,) = model.layers
    np.testing.assert_allclose(layer.moving_mean, data.mean(0), rtol=1e-5)
    np.testing.assert_allclose(
        layer.moving_variance, data.reshape(4, 10, 3).var(1).mean(0), rtol=1e-4
    )
    assert layer.momentum == 0.99
