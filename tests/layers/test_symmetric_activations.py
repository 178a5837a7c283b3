"""Activations of 16 bits: as many steps below zero as above, as LiteRT's int16 has them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmpq_tf import quantize_model
from bmpq_tf.arithmetic import activations
from bmpq_tf.layers import QuantIdentity, QuantReLU

VALUES = np.random.default_rng(0).normal(0, 3, (64, 8)).astype("float32")


@pytest.mark.parametrize("layer", [QuantIdentity, QuantReLU])
def test_values_lie_on_the_steps_of_int16(layer):
    quantized = layer(bits=16)
    answers = np.asarray(quantized(VALUES, training=True))
    quantizer = quantized.activation_quantizer
    step = float(quantizer.clip()) / activations.steps(16)
    whole = answers / step
    assert activations.steps(16) == 2 * (2**15 - 1)
    assert quantizer.zero_point == 2**15 - 1
    assert np.abs(whole).max() <= 2**15 - 1 + 0.01
    np.testing.assert_allclose(whole, np.round(whole), atol=0.01)
    expected = VALUES if layer is QuantIdentity else np.maximum(VALUES, 0)
    np.testing.assert_allclose(answers, expected, atol=step)


def test_a_relu6_ends_at_6():
    quantized = QuantReLU(max_value=6, bits=16)
    answers = np.asarray(quantized(4 * VALUES, training=True))
    assert answers.max() == pytest.approx(6, rel=1e-5)
    quantized.activation_quantizer.log_clip.assign(1.0)
    assert np.asarray(quantized(4 * VALUES)).max() == pytest.approx(6, rel=1e-5)


def test_the_clip_gets_the_gradient_of_both_ends():
    values = tf.constant([-9.0, -1.0, 2.0, 9.0, 9.0])
    half = float(activations.steps(16) // 2)
    with tf.GradientTape() as tape:
        clip = tf.Variable(8.0)
        answer = tf.reduce_sum(activations.fake_quantize(values, clip, half, 16))
    # Each end is half of the clip: two values above, one below.
    assert tape.gradient(answer, clip).numpy() == pytest.approx(0.5)


def test_a_model_rounds_its_inputs_at_16_bits_too_and_comes_back_from_its_config():
    given = keras.Input((8,))
    x = keras.layers.Dense(4, activation="relu")(given)
    model = quantize_model(keras.Model(given, keras.layers.Dense(2)(x)), activation_bits=16)
    first = model.layers[1]
    assert (first.input_quantizer.bits, first.output_quantizer.bits) == (16, 16)
    again = type(first).from_config(first.get_config())
    assert (again.input_quantizer.bits, again.output_quantizer.bits) == (16, 16)
