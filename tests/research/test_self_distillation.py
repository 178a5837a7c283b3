"""A step of a model that its own unrounded weights teach."""

import keras
import numpy as np
import tensorflow as tf

from bmpq_research.experiments.self_distillation import teach_itself
from bmpq_tf import quantize_model
from bmpq_tf.model.kernels import model_kernels
from bmpq_tf.tuning.losses import ClassificationLoss, accuracy

RATE, SHARE = 0.1, 0.25
INPUTS = np.random.default_rng(0).normal(3.0, 2.0, (16, 4)).astype("float32")
LABELS = np.arange(16) % 3


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Dense(5)(inputs))
    model = quantize_model(keras.Model(inputs, keras.layers.Dense(3)(hidden)), (2, 4), pin=None)
    for state in model_kernels(model):
        state.quantizer.set_width(2, state.variable)
    model(INPUTS[:1])
    return model


def stepped(model: keras.Model) -> keras.Model:
    loss = ClassificationLoss(distillation=SHARE)
    model.compile(keras.optimizers.SGD(RATE), loss, metrics=[accuracy], jit_compile=False)
    teach_itself(model)
    batch = tf.data.Dataset.from_tensors((INPUTS, LABELS))
    told = model.fit(batch, epochs=1, shuffle=False, verbose=0).history
    assert set(told) == {"accuracy", "loss"}
    assert np.isfinite(told["loss"]).all()
    return model


def test_a_step_follows_both_losses_and_keeps_the_rounded_networks_statistics():
    model, twin = network(), network()
    _, dense, norm, last = twin.layers
    first_kernel, last_kernel = (state.variable for state in model_kernels(twin))
    with tf.GradientTape() as tape:
        hidden = INPUTS @ tf.convert_to_tensor(first_kernel) + dense.bias
        mean, variance = tf.nn.moments(hidden, 0)
        hidden = tf.nn.batch_normalization(
            hidden, mean, variance, norm.beta, norm.gamma, norm.epsilon
        )
        teacher = hidden @ tf.convert_to_tensor(last_kernel) + last.bias
        answers = twin(INPUTS, training=True)
        one_hot = tf.one_hot(LABELS, 3)
        apart = keras.losses.kl_divergence(
            tf.stop_gradient(tf.nn.softmax(teacher / 4.0)), tf.nn.softmax(answers / 4.0)
        )
        rounded, unrounded = (
            tf.nn.softmax_cross_entropy_with_logits(one_hot, logits)
            for logits in (answers, teacher)
        )
        loss = tf.reduce_mean((1 - SHARE) * rounded + SHARE * 16.0 * apart + unrounded)
    gradients = tape.gradient(loss, twin.trainable_variables)
    expected = [
        variable - RATE * gradient
        for variable, gradient in zip(twin.trainable_variables, gradients, strict=True)
    ]
    stepped(model)
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-5, err_msg=variable.path)
    # The twin went forward once, with its rounded kernels.
    _, _, of_model, _ = model.layers
    np.testing.assert_allclose(of_model.moving_mean, norm.moving_mean, rtol=1e-5)
    np.testing.assert_allclose(of_model.moving_variance, norm.moving_variance, rtol=1e-5)
