"""Options of one kernel's quantizer.

Where scales start, normalised kernels, gradients of single weights.
"""

import dataclasses
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled

from bmpq_tf.allocation.sensitivity import estimate_costs
from bmpq_tf.arithmetic import quantizers, scales
from bmpq_tf.layers import QuantDense, QuantizerConfig, QuantLSTM
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer
from bmpq_tf.model.kernels import measurement, model_kernels, read

WEIGHTS = np.random.default_rng(0).normal([0.0, 0.5, -2.0], 1.0, (12, 3)).astype("float32")


def quantizer(weights=WEIGHTS, bits=2, **config) -> tuple[keras.Variable, KernelQuantizer]:
    kernel, made = (
        keras.Variable(weights),
        KernelQuantizer(QuantizerConfig((2, 4), **config), (-1,)),
    )
    made.build(kernel.shape)
    made.bits.assign(bits)
    made.initialise_scale(kernel)
    return kernel, made


@pytest.mark.parametrize(("granularity", "axes"), [("channel", (-1,)), ("tensor", ())])
def test_learned_scales_start_where_the_config_says_at_every_width(granularity, axes):
    kernel, made = quantizer(initial_scale="mse", granularity=granularity)
    differences = []
    for bits in (2, 4):
        made.set_width(bits, kernel)
        made.log_gain.assign_add(tf.ones_like(made.log_gain))
        made.initialise_scale(kernel)
        np.testing.assert_allclose(
            made.scale(WEIGHTS), scales.least_squares(WEIGHTS, bits, axes), rtol=1e-6
        )
        differences.append(
            np.max(np.abs(1.0 - scales.statistical(WEIGHTS, bits, axes) / made.scale(WEIGHTS)))
        )
    assert max(differences) > 0.02, "or another rule might have been taken"


def gain_gradient(layer, inputs, steepness):
    """The gradient of a layer's log_gain under a loss of this steepness."""
    with tf.GradientTape() as tape:
        loss = steepness * tf.reduce_sum(tf.cast(layer(inputs), tf.float32))
    return np.asarray(tape.gradient(loss, layer.kernel_quantizer.log_gain.value))


def test_a_learned_scale_takes_a_bounded_step_however_steep_the_loss():
    layer, inputs = QuantDense(3, quantizer={"candidate_bits": (2, 4)}), tf.constant(WEIGHTS.T)
    layer.build(inputs.shape)
    gentle = gain_gradient(layer, inputs, 1e-3)
    assert 0 < np.abs(gentle).max() < 0.1
    np.testing.assert_allclose(gain_gradient(layer, inputs, 2e-3), 2 * gentle, rtol=1e-5)
    np.testing.assert_array_equal(gain_gradient(layer, inputs, 1e6), np.sign(gentle))
    assert not np.any(np.isfinite(gain_gradient(layer, inputs, np.inf))), (
        "what looks for overflow must find it"
    )


def test_the_bound_of_a_scales_step_goes_by_the_loss_without_its_scale():
    layer, inputs = (
        QuantDense(3, dtype="mixed_float16", quantizer={"candidate_bits": (2, 4)}),
        tf.constant(WEIGHTS.T),
    )
    layer.build(inputs.shape)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=1024.0)
    optimizer.build([])
    unknown = gain_gradient(layer, inputs, 10 * 1024.0)
    assert np.abs(unknown).max() > 1024, (
        "without the callback nothing tells a loss scale from a steep loss"
    )
    layer.kernel_quantizer.follow_loss_scale(optimizer)
    np.testing.assert_allclose(
        gain_gradient(layer, inputs, 10 * 1024.0), np.clip(unknown, -1024, 1024), rtol=1e-6
    )


class Block(keras.layers.Layer):
    """Without a build(): Keras builds what is inside it while it traces its call."""

    def __init__(self, **quantizer):
        super().__init__()
        self.first = QuantDense(
            6, activation="relu", quantizer={"candidate_bits": (2, 4), **quantizer}
        )
        self.steps = QuantLSTM(
            4, quantizer={"sublayers": {"lstm_cell": {"candidate_bits": (2, 4), **quantizer}}}
        )

    def call(self, inputs):
        return self.steps(self.first(inputs)[:, None])


class Net(keras.Model):
    def __init__(self, **quantizer):
        super().__init__()
        self.block, self.head = (
            Block(**quantizer),
            QuantDense(3, quantizer={"candidate_bits": (2, 4), **quantizer}),
        )

    def call(self, inputs):
        return self.head(self.block(inputs))


def _in_a_functional_model(inputs, **quantizer):
    x = keras.Input(inputs.shape[1:])
    return keras.Model(
        x, QuantDense(3, quantizer={"candidate_bits": (2, 4), **quantizer})(Block(**quantizer)(x))
    )


def _called(inputs, **quantizer):
    model = Net(**quantizer)
    model(inputs)
    return model


def _predicting(inputs, **quantizer):
    model = Net(**quantizer)
    model.predict(inputs, verbose=0)
    return model


def _fitted(inputs, jit_compile=False, **quantizer):
    model = compiled(Net(**quantizer), optimizer=keras.optimizers.SGD(0.0), jit_compile=jit_compile)
    model.fit(inputs, np.zeros(len(inputs)), batch_size=4, verbose=0)
    return model


def _fitted_sequential(inputs, **quantizer):
    layers = [QuantDense(6, quantizer={"candidate_bits": (2, 4), **quantizer}) for _ in range(4)]
    model = compiled(keras.Sequential(layers), optimizer=keras.optimizers.SGD(0.0))
    model.fit(inputs, np.zeros(len(inputs)), batch_size=4, verbose=0)
    return model


EVERYTHING = {"normalise_kernels": True, "initial_scale": "mse", "track_oscillations": True}


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (_in_a_functional_model, {}),
        (_called, {}),
        pytest.param(_predicting, {}, marks=pytest.mark.slow),
        pytest.param(_fitted, {}, marks=pytest.mark.slow),
        pytest.param(partial(_fitted, jit_compile=True), {}, marks=pytest.mark.slow),
        pytest.param(_fitted_sequential, {}, marks=pytest.mark.slow),
        # Eagerly and inside a trace.
        pytest.param(_in_a_functional_model, EVERYTHING, marks=pytest.mark.slow),
        pytest.param(_fitted, EVERYTHING, marks=pytest.mark.slow),
    ],
)
def test_learned_scales_start_with_their_kernel_wherever_the_layer_is_built(make, options):
    model = make(np.random.default_rng(0).normal(size=(8, 5)).astype("float32"), **options)
    states = model_kernels(model)
    assert len(states) == 4
    for state in states:
        kernel, fresh = (
            keras.Variable(state.variable),
            KernelQuantizer(state.quantizer.config, state.quantizer.channel_axes),
        )
        fresh.build_for(kernel)
        np.testing.assert_allclose(state.quantizer.scale_base, fresh.scale_base, rtol=1e-5)
        # Its integers use the width's range.
        assert np.abs(state.quantizer.integers(state.variable)).max() >= 6


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("scale", ["learned", "statistical"])
def test_a_normalised_kernel_is_its_integers_times_its_scales_whatever_its_mean_and_size(
    scale, granularity
):
    kernel, made = quantizer(scale=scale, normalise_kernels=True, granularity=granularity)
    used = np.asarray(made.call(kernel))
    np.testing.assert_array_equal(
        used, np.asarray(made.integers(WEIGHTS)) * np.asarray(made.scale(WEIGHTS))
    )
    # One scale for the tensor, too, is of channels that are normalised each.
    normalised = (WEIGHTS - WEIGHTS.mean(0)) / WEIGHTS.std(0)
    _, plain = quantizer(normalised, scale=scale, granularity=granularity)
    np.testing.assert_allclose(used, plain.call(normalised) * WEIGHTS.std(0), atol=1e-5)
    # The scales grow with the weights: a learned one would not without the deviation in it.
    np.testing.assert_allclose(made.call(tf.constant(5 * WEIGHTS + 1)), 5 * used, rtol=1e-4)
    layer = QuantDense(
        3,
        quantizer={
            "candidate_bits": [2],
            "scale": scale,
            "granularity": granularity,
            "normalise_kernels": True,
        },
    )
    model = keras.Sequential([keras.Input((12,)), layer])
    layer._kernel.assign(WEIGHTS)
    (state,) = model_kernels(model)
    state.quantizer.initialise_scale(state.variable)
    measured = dataclasses.replace(measurement(state), gradient_abs=np.ones((1, 3)))
    np.testing.assert_allclose(measured.weights, WEIGHTS - WEIGHTS.mean(0), atol=1e-6)
    # What a width is estimated to cost is of the scales that it starts with.
    assert estimate_costs(measured, [2]) == pytest.approx(
        [np.abs(state.quantizer.call(WEIGHTS) - measured.weights).sum()], rel=1e-5
    )


@pytest.mark.parametrize("rule", ["statistical", "mse"])
@pytest.mark.parametrize("normalise_kernels", [False, True])
def test_channels_of_zeros_do_not_shrink_a_scale_that_all_share(normalise_kernels, rule):
    with_zeros = np.concatenate([WEIGHTS, np.zeros((12, 30), "float32")], 1)
    _, alone = quantizer(normalise_kernels=normalise_kernels, initial_scale=rule)
    _, among_zeros = quantizer(with_zeros, normalise_kernels=normalise_kernels, initial_scale=rule)
    np.testing.assert_allclose(among_zeros.scale_base, alone.scale_base, rtol=1e-5)


def test_gradients_go_through_mean_and_deviation():
    _, made = quantizer(normalise_kernels=True)
    upstream = tf.constant(np.random.default_rng(1).standard_normal(WEIGHTS.shape), tf.float32)
    weights = tf.constant(WEIGHTS)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(weights)
        ours = made.call(weights)
        # As the papers write it: normalise, quantize with the learned scale alone, multiply the
        # deviation in again.
        mean = tf.reduce_mean(weights, 0, keepdims=True)
        deviation = tf.math.reduce_std(weights, 0, keepdims=True)
        theirs = deviation * quantizers.fake_quantize(
            (weights - mean) / deviation, tf.constant(made.scale_base.numpy()), 2.0
        )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_allclose(
        tape.gradient(ours, weights, upstream), tape.gradient(theirs, weights, upstream), atol=1e-5
    )


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("normalise_kernels", [False, True])
def test_a_kernel_that_starts_at_zero_is_not_clipped_away(normalise_kernels, granularity):
    _, made = quantizer(
        np.zeros((256, 64), "float32"), normalise_kernels=normalise_kernels, granularity=granularity
    )
    weights = np.random.default_rng(0).normal(0.0, 256**-0.5, (256, 64)).astype("float32")
    assert np.all(np.std(made.call(tf.constant(weights)), 0) > 0.5 * weights.std(0))


def test_channels_that_cannot_be_normalised_do_no_harm():
    # One weight is its own mean; equal weights have no deviation.
    kernel, made = quantizer(WEIGHTS[:1], bits=4, normalise_kernels=True)
    np.testing.assert_allclose(
        made.call(kernel), WEIGHTS[:1], atol=0.5 * float(made.scale(kernel)[0, 0]) + 1e-6
    )
    assert made.scale(kernel) < 0.2
    weights = tf.constant(np.full((4, 3), 0.7, "float32"))
    _, made = quantizer(weights, normalise_kernels=True)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        used = made.call(weights)
    assert np.all(np.isfinite(tape.gradient(used, weights)))
    np.testing.assert_allclose(used, 0.0, atol=1e-6)


def test_single_weights_are_tracked_where_asked_for_and_only_there():
    assert not hasattr(quantizer()[1], "weight_gradient_abs_sum")
    kernel, made = quantizer(track_sensitivity="joint")
    steps = [
        np.random.default_rng(seed).standard_normal(WEIGHTS.shape).astype("float32")
        for seed in range(3)
    ]
    for gradient in [*steps, np.full_like(WEIGHTS, np.nan)]:
        with tf.GradientTape() as tape:
            tape.watch(kernel.value)
            used = made.call(kernel)
        tape.gradient(used, kernel.value, gradient)
    np.testing.assert_allclose(read(made.weight_gradient_abs_sum), np.abs(steps).sum(0), rtol=1e-5)
    made.reset_accumulators()
    assert not np.any(read(made.weight_gradient_abs_sum))


def test_the_joint_objective_goes_by_single_weights():
    layer = QuantDense(3, quantizer={"candidate_bits": [2, 4], "track_sensitivity": "joint"})
    model = keras.Sequential([keras.Input((12,)), layer])
    layer._kernel.assign(WEIGHTS)
    x = np.random.default_rng(2).standard_normal((8, 12)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(x) ** 2)
    tape.gradient(loss, layer._kernel.value)
    (state,) = model_kernels(model)
    measured = measurement(state)
    np.testing.assert_allclose(
        measured.weight_gradient_abs.mean(0, keepdims=True), measured.gradient_abs, rtol=1e-5
    )
    joint, factored = estimate_costs(measured, [2, 4], "joint"), estimate_costs(measured, [2, 4])
    # Where large gradients meet large errors, the product of means is not the mean of products.
    assert 1e-3 < abs(joint[0] / factored[0] - 1) < 0.5
