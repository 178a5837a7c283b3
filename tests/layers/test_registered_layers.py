"""What every quantized layer must hold, asserted for each entry of the registry."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_examples import (
    ENTRIES,
    EXAMPLES,
    INSIDE,
    call_arguments,
    class_name,
    example_arguments,
    example_inputs,
    kernels_of,
)

from bmpq_tf import quantize_model
from bmpq_tf.arithmetic import bit_planes
from bmpq_tf.layers import QuantizerConfig
from bmpq_tf.model import keras_graph
from bmpq_tf.model.kernels import model_kernels, read

# One composite of each kind stands for the rest in the fast tests: what they share is one mixin.
SLOW = {
    # Other ranks of what Conv2D, Conv2DTranspose, DepthwiseConv2D and SeparableConv2D show.
    "Conv1D",
    "Conv3D",
    "Conv1DTranspose",
    "Conv3DTranspose",
    "DepthwiseConv1D",
    "SeparableConv1D",
    "MultiHeadAttention/plain",
    "GroupedQueryAttention",
    "GRU",
    "SimpleRNN",
    "RNN",
    "Bidirectional",
    # What TimeDistributed shows, inside another layer.
    "TimeDistributed/dynamic",
}
SLOWER = SLOW | {name for name in EXAMPLES if ENTRIES[class_name(name)].is_composite}


def slow_if(is_slow: bool):
    """Marks for a case that only `make test-all` runs, or none."""
    return pytest.mark.slow if is_slow else ()


ALL = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=slow_if(name in SLOW)) for name in EXAMPLES]
)


LEAVES = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=slow_if(name in SLOWER)) for name in EXAMPLES]
)


def test_every_registered_layer_is_tested_here():
    assert {class_name(name) for name in EXAMPLES} | INSIDE == set(ENTRIES)


class TestRegisteredLayer:
    def layer(self, name, **quantizer):
        config = {"candidate_bits": (2, 4), "scale": "learned", **quantizer}
        return ENTRIES[class_name(name)].quantized_class(
            **example_arguments(name), quantizer=config, name="layer"
        ), EXAMPLES[name][1]

    def model(self, name, **quantizer):
        layer, shape = self.layer(name, **quantizer)
        inputs = keras.Input(shape)
        model = keras.Model(inputs, layer(*call_arguments(name, inputs)))
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
        x = example_inputs(name, 8)
        return (
            model,
            layer,
            x,
            np.random.default_rng(1).standard_normal(model(x).shape).astype("float32"),
        )

    @pytest.mark.parametrize("name", ENTRIES)
    def test_signature_is_the_parents_and_quantizer(self, name):
        ours = inspect.signature(ENTRIES[name].quantized_class).parameters
        theirs = inspect.signature(ENTRIES[name].float_class).parameters
        assert [key for key in ours if key != "quantizer"] == list(theirs)
        assert all(ours[key].default == theirs[key].default for key in theirs)
        assert ours["quantizer"].default is None

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_config_round_trip(self, name):
        layer, shape = self.layer(name, candidate_bits=(4,), pinned=True, granularity="channel")
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        inputs = keras.Input(shape)
        again(*call_arguments(name, inputs))
        for _, _, quantizer in kernels_of(again):
            assert quantizer.config == QuantizerConfig((4,), pinned=True, granularity="channel")
        # Each kernel once, under a path of its own.
        assert (
            len({kernel.path for _, kernel, _ in kernels_of(again)}) == len(kernels_of(again)) >= 1
        )
        assert not [
            part for part in keras_graph.sublayers(again) if keras_graph.kernel_variables(part)
        ]

    @pytest.mark.parametrize(
        ("name", "scale"),
        [
            # Layers and scale rules meet in the quantizer alone: each once is each.
            *(pytest.param(name, "learned", marks=slow_if(name in SLOW)) for name in EXAMPLES),
            ("Dense", "statistical"),
            ("Dense", "max_abs"),
        ],
    )
    def test_save_and_load_give_back_every_bit_of_state(self, name, scale, tmp_path):
        model, layer, x, y = self.model(name, scale=scale)
        model.fit(x, y, epochs=2, verbose=0)
        for _, kernel, quantizer in kernels_of(layer):
            quantizer.set_width(2, kernel)
            quantizer.history = (
                {
                    "epoch": 1,
                    "bits": 2,
                    "status": "optimal",
                    "sensitivity": 0.5,
                    "enbg": 0.1,
                    "budget": {"compression": 8},
                },
            )
        model.fit(x, y, verbose=0)
        model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert [kernel.path for _, kernel, _ in kernels_of(loaded)] == [
            kernel.path for _, kernel, _ in kernels_of(layer)
        ]
        fresh, fresh_layer, _, _ = self.model(name, scale=scale)
        fresh.load_weights(tmp_path / "model.weights.h5")
        for other, other_layer in ((loaded, loaded.layers[-1]), (fresh, fresh_layer)):
            assert len(other.weights) == len(model.weights)
            for mine, theirs in zip(model.weights, other.weights, strict=True):
                np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=mine.path)
            for (_, _, mine), (_, _, theirs) in zip(
                kernels_of(layer), kernels_of(other_layer), strict=True
            ):
                assert theirs.history == mine.history
                assert theirs.width == 2
            np.testing.assert_array_equal(model.predict(x, verbose=0), other.predict(x, verbose=0))

    @ALL
    def test_what_reads_as_the_kernel_is_quantized_and_the_float_one_is_kept(self, name):
        _model, layer, _, _ = self.model(name)
        for part, kernel, quantizer in kernels_of(layer):
            quantizer.set_width(2, kernel)
            used = np.asarray(getattr(part, kernel.name))
            scale = np.broadcast_to(np.asarray(quantizer.scale(kernel.value)), used.shape)
            assert set(np.unique(np.round(used / scale))) <= {-2.0, -1.0, 0.0, 1.0}
            assert not np.array_equal(used, kernel.numpy())

    @ALL
    def test_a_training_step_moves_every_float_kernel_and_every_scale(self, name):
        model, _layer, x, y = self.model(name)
        before = {variable.path: variable.numpy() for variable in model.trainable_variables}
        model.fit(x, y, verbose=0)
        for variable in model.trainable_variables:
            assert not np.array_equal(before[variable.path], variable.numpy()), variable.path
        assert any("log_gain" in path for path in before)

    @pytest.mark.parametrize(
        ("name", "bits"),
        [
            *(pytest.param(name, 2, marks=slow_if(name in SLOW)) for name in EXAMPLES),
            ("Conv2D", 4),
        ],
    )
    def test_accumulated_sensitivities_equal_the_explicit_bit_planes(self, name, bits):
        model, layer, x, y = self.model(name)
        for _, kernel, quantizer in kernels_of(layer):
            quantizer.set_width(bits, kernel)
        batches = [(x[:4], y[:4]), (x[4:], y[4:])]
        expected = {kernel.path: [] for _, kernel, _ in kernels_of(layer)}
        for inputs, targets in batches:
            quantized = {
                kernel.path: tf.identity(getattr(part, kernel.name))
                for part, kernel, _ in kernels_of(layer)
            }
            with tf.GradientTape() as tape:
                tape.watch(list(quantized.values()))
                loss = tf.reduce_mean((plain_call(name, layer, quantized, inputs) - targets) ** 2)
            gradients = {
                path: tf.convert_to_tensor(gradient)
                for path, gradient in tape.gradient(loss, quantized).items()
            }
            for _, kernel, quantizer in kernels_of(layer):
                scale = quantizer.scale(kernel.value)
                expected[kernel.path].append(
                    (
                        gradients[kernel.path],
                        bit_planes.normalised_bit_gradient(gradients[kernel.path], scale, bits),
                    )
                )
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(inputs) - targets) ** 2)
            tape.gradient(loss, model.trainable_variables)
        for _, kernel, quantizer in kernels_of(layer):
            sums = quantizer.accumulated()
            assert sums.uses_seen == sums.uses_finite == 2
            gradients = [np.asarray(gradient) for gradient, _ in expected[kernel.path]]
            axes = tuple(axis for axis, size in enumerate(sums.gradient_abs.shape) if size == 1)
            abs_sum = sum(np.abs(g).mean(axis=axes, keepdims=True) for g in gradients)
            square_sum = sum(np.square(g).mean(axis=axes, keepdims=True) for g in gradients)
            np.testing.assert_allclose(sums.gradient_abs, abs_sum, rtol=1e-4)
            np.testing.assert_allclose(sums.gradient_square, square_sum, rtol=1e-4)
            np.testing.assert_allclose(
                sums.bit_gradient, sum(float(nbg) for _, nbg in expected[kernel.path]), rtol=1e-4
            )

    @LEAVES
    def test_gradients_that_are_not_finite_add_nothing(self, name):
        model, layer, x, _y = self.model(name)
        for value in (np.nan, np.inf):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(x) * value)
            tape.gradient(loss, model.trainable_variables)
        for _, _, quantizer in kernels_of(layer):
            assert read(quantizer.uses_seen) == 2
            assert not np.any(read(quantizer.gradient_sums))

    @LEAVES
    def test_a_new_width_starts_the_scale_anew_and_the_same_width_leaves_it(self, name):
        model, layer, x, y = self.model(name)
        model.fit(x, y, epochs=3, verbose=0)
        for _, kernel, quantizer in kernels_of(layer):
            learned = quantizer.log_gain.numpy()
            assert not quantizer.set_width(4, kernel)
            np.testing.assert_array_equal(quantizer.log_gain.numpy(), learned)
            assert quantizer.set_width(2, kernel)
            assert np.all(quantizer.log_gain.numpy() == 0)
            with pytest.raises(ValueError, match="cannot be 3 bits wide"):
                quantizer.set_width(3, kernel)


def plain_call(name, layer, kernels, inputs):
    """Calls Keras's own layer with given kernels, and else with the weights of ours."""
    plain = ENTRIES[class_name(name)].float_class(**example_arguments(name), name="layer")
    arguments = call_arguments(name, tf.convert_to_tensor(inputs))
    plain(*arguments)
    ours = {variable.path.split("layer/", 1)[1]: variable for variable in layer.weights}
    values = []
    for variable in plain.trainable_variables:
        mine = ours[variable.path.split("layer/", 1)[1]]
        values.append(kernels.get(mine.path, mine.value))
    output, _ = plain.stateless_call(
        values, [variable.value for variable in plain.non_trainable_variables], *arguments
    )
    return output


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_kernels_of_a_model_are_found_with_their_paths(granularity):
    config = {"candidate_bits": (3,), "pinned": True, "granularity": granularity}
    layer = ENTRIES["Dense"].quantized_class(2, quantizer=config, name="only")
    model = keras.Sequential([keras.Input((4,)), layer], name="model")
    (state,) = model_kernels(model)
    assert (
        state.kernel.path,
        state.kernel.weights,
        state.kernel.candidates,
        state.kernel.pinned,
        state.kernel.channels,
        state.kernel.macs,
    ) == (
        "model/only/kernel",
        8,
        (3,),
        True,
        2,
        8,
    )


@pytest.mark.parametrize(
    ("layer", "shape", "forms"),
    [
        (keras.layers.Dense(2), (4,), [(2, 1, False)]),
        (keras.layers.EinsumDense("ab,bcd->acd", (2, 3)), (4,), [(6, 1, False)]),
        (keras.layers.Conv1D(3, 5), (8, 2), [(3, 5, False)]),
        (keras.layers.Conv2D(3, (3, 2)), (8, 8, 4), [(3, 6, False)]),
        (keras.layers.Conv2DTranspose(3, 2), (8, 8, 4), [(3, 4, False)]),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 4), [(8, 9, True)]),
        (keras.layers.SeparableConv2D(6, 3), (8, 8, 4), [(4, 9, True), (6, 1, False)]),
        (keras.layers.LSTM(2), (8, 4), [(8, None, False), (8, None, False)]),
    ],
    ids=lambda one: one.name if isinstance(one, keras.layers.Layer) else "",
)
def test_kernels_are_told_with_what_each_output_reads(layer, shape, forms):
    model = quantize_model(keras.Sequential([keras.Input(shape), layer]), pin=None)
    kernels = [state.kernel for state in model_kernels(model)]
    assert [(one.channels, one.window, one.depthwise) for one in kernels] == forms
