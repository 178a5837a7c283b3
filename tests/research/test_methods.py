"""The other methods, each by what it is known for."""

import keras
import numpy as np
import pytest
from conftest import compiled

from bmpq_research.experiments.activation_density import ActivationDensityCallback, followed_by_relu
from bmpq_research.experiments.after_training import file_sizes, quantized_after_training
from bmpq_research.experiments.controls import Control
from bmpq_research.experiments.hessian import HessianTraces, copy_float_weights, hutchinson_traces
from bmpq_research.experiments.model_sensitivities import StepSizes, UncolouredSquares
from bmpq_research.models import build_model
from bmpq_tf import BMPQCallback, Measurement, quantize_model
from bmpq_tf.model.kernels import measurement, model_kernels


def test_hutchinson_finds_the_trace_of_a_hessian_known_in_closed_form():
    """For softmax regression, `H = x x^T (diag(p) - p p^T)`, whose trace is `|x|^2 (1 - |p|^2)`,
    averaged over the batch.
    """
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(4, name="head")(inputs))
    generator = np.random.default_rng(0)
    images = generator.standard_normal((6, 3)).astype("float32")
    logits = np.asarray(model(images))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    exact = np.mean((images**2).sum(-1) * (1 - (shares**2).sum(-1)))
    (kernel,) = [
        variable for variable in model.trainable_variables if variable.path == "head/kernel"
    ]
    traces = hutchinson_traces(model, [kernel], images, np.arange(6) % 4, draws=400, seed=(0, 0))
    assert traces["head/kernel"] == pytest.approx(exact, rel=0.1)
    assert traces == hutchinson_traces(
        model, [kernel], images, np.arange(6) % 4, draws=400, seed=(0, 0)
    )


@pytest.mark.slow
def test_hessian_allocates_by_traces_at_the_float_weights(monkeypatch):
    float_model = build_model("digits_cnn", (8, 8, 1), 10, 0.25)
    model = compiled(quantize_model(float_model, (2, 4, 8)))
    images, labels = (
        np.random.default_rng(0).standard_normal((16, 8, 8, 1)).astype("float32"),
        np.arange(16) % 10,
    )
    traces = {"hidden/kernel": 1e6}
    monkeypatch.setattr(
        "bmpq_research.experiments.hessian.hutchinson_traces",
        lambda m, kernels, *args, **kwargs: {k.path: traces.get(k.path, -1.0) for k in kernels},
    )
    callback = BMPQCallback(
        "7x", sensitivity=HessianTraces(model, float_model, images, labels), verbose=0
    )
    model.fit(images, labels, epochs=2, verbose=0, callbacks=[callback])
    bits = callback.history[-1]["bits"]
    assert bits["hidden/kernel"] == max(bits.values())
    copy_float_weights(model, float_model)
    latent = {state.kernel.path: np.asarray(state.variable) for state in model_kernels(model)}
    for variable in float_model.trainable_variables:
        if variable.path in latent:
            np.testing.assert_array_equal(variable, latent[variable.path])


def wide_and_narrow(layer_name):
    """Squared sensitivities of a network whose named kernel has 2, then 8 bits, each as a share of
    all; as they are, and uncoloured.
    """
    told = {"squared": [], "uncoloured": []}
    data = np.random.default_rng(0).standard_normal((64, 8, 8, 1)).astype("float32")
    labels = np.arange(64) % 10
    for bits in (2, 8):
        keras.utils.set_random_seed(0)
        model = quantize_model(build_model("digits_cnn", (8, 8, 1), 10), (2, 4, 8), pin=None)
        for state in model_kernels(model):
            width = bits if state.layer.name == layer_name else 4
            state.quantizer.set_width(width, state.variable)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.0), loss, jit_compile=False)
        model.fit(data, labels, batch_size=64, verbose=0)
        measured = [measurement(state) for state in model_kernels(model)]
        for name, costs in (
            ("squared", Control("bmpq", "squared")(measured)),
            ("uncoloured", UncolouredSquares(model)(measured)),
        ):
            shares = {path: values[0] for path, values in costs.items()}
            told[name].append(shares[f"{layer_name}/kernel"] / sum(shares.values()))
    return {name: wide / narrow for name, (narrow, wide) in told.items()}


def test_uncoloured_squares_do_not_go_by_the_present_width():
    ratios = wide_and_narrow("block2_depthwise")
    assert abs(np.log(ratios["uncoloured"])) < abs(np.log(ratios["squared"])) / 3


def test_step_sizes_are_those_that_training_learned_whatever_the_number_of_weights():
    model = quantize_model(build_model("digits_cnn", (8, 8, 1), 10), (2, 4, 8))
    states = [state for state in model_kernels(model) if len(state.kernel.candidates) > 1]
    once = np.ones((1,))
    measured = [
        Measurement(
            state.kernel.path,
            np.asarray(state.variable),
            *(once, once),
            enbg=0.0,
            channel_axes=(),
            candidates=state.kernel.candidates,
        )
        for state in states
    ]
    before = StepSizes(model)(measured)
    for state in states:
        scale = float(np.mean(state.quantizer.scale(state.variable.value)))
        assert before[state.kernel.path][-1] == pytest.approx(scale, rel=0.3)
        assert before[state.kernel.path] == sorted(before[state.kernel.path], reverse=True)
    states[0].quantizer.log_gain.assign(states[0].quantizer.log_gain + np.log(3.0))
    after = StepSizes(model)(measured)
    assert after[states[0].kernel.path] == pytest.approx(
        [3.0 * cost for cost in before[states[0].kernel.path]], rel=0.01
    )
    assert after[states[1].kernel.path] == before[states[1].kernel.path]


def test_relus_are_found_behind_their_layers():
    found = followed_by_relu(quantize_model(build_model("resnet20", (32, 32, 3), 10, 0.25)))
    assert found["stem_conv"].name == "stem_relu"
    assert (
        found["stage2_block1_b_conv"].name
        == found["stage2_block1_shortcut_conv"].name
        == "stage2_block1_relu"
    )
    assert "head" not in found


def test_activation_density_multiplies_widths_by_densities_twice():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(6, name="first", activation="relu")(inputs)
    # Biases fix the densities: all alive, a third alive, and the last layer's are not asked for.
    x = keras.layers.Dense(
        6, name="dense", activation="relu", kernel_initializer="zeros", bias_initializer="ones"
    )(x)
    x = keras.layers.Dense(6, name="sparse", activation="relu", kernel_initializer="zeros")(x)
    float_model = keras.Model(inputs, keras.layers.Dense(3, name="head")(x))
    float_model.get_layer("sparse").bias.assign([1.0, 1.0, -1.0, -1.0, -1.0, -1.0])
    model = quantize_model(float_model, tuple(range(2, 9)), pin="ends")
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    images = np.random.default_rng(0).standard_normal((8, 4)).astype("float32")
    callback = ActivationDensityCallback(images, settle_epochs=2, verbose=0)
    model.fit(images, np.zeros((8, 3)), epochs=8, verbose=0, callbacks=[callback])
    told = [
        (allocation["epoch"], allocation["status"], allocation["bits"]["sparse/kernel"])
        for allocation in callback.history
    ]
    assert [bits for _, _, bits in told] == [8, 5, 5, 2, 2, 2, 2]
    assert [epoch for epoch, status, _ in told if status == "densities at rest"] == [2, 4]
    assert callback.history[-1]["sensitivity"]["sparse/kernel"] == pytest.approx(1 / 3)
    assert {state.kernel.path: state.bits for state in model_kernels(model)} == {
        "first/kernel": 8,
        "dense/kernel": 8,
        "sparse/kernel": 2,
        "head/kernel": 8,
    }


def test_weights_are_quantized_after_training(tmp_path):
    model = build_model("digits_cnn", (8, 8, 1), 10, 0.5)
    weights = sum(
        int(np.prod(variable.shape))
        for variable in model.trainable_variables
        if len(variable.shape) > 1
    )
    eight = file_sizes(quantized_after_training(model, 8, tmp_path))
    assert (eight["parameter_bits"], eight["float_bits"]) == (8 * weights, 32 * weights)
    four = file_sizes(quantized_after_training(model, 4, tmp_path))
    # First and last are pinned; there is no depthwise convolution in 4 bits.
    assert {name.split("/")[1]: width for name, width in four["widths"].items()} == {
        "stem_conv_1": 8,
        "block1_conv_1": 4,
        "block2_depthwise_bn_1": 32,
        "block2_conv_1": 4,
        "hidden_1": 4,
        "head_1": 8,
    }
