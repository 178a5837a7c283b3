"""What every quantized layer must hold, asserted for each entry of the registry."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_examples import EXAMPLES, example_inputs

from bmpq_tf.arithmetic import bit_planes
from bmpq_tf.kernels import model_kernels, read
from bmpq_tf.layers import QuantizerConfig, registered

ENTRIES = {entry.float_class.__name__: entry for entry in registered()}


def test_every_registered_layer_is_tested_here():
    assert set(EXAMPLES) == set(ENTRIES)


@pytest.mark.parametrize("name", EXAMPLES)
class TestRegisteredLayer:
    def layer(self, name, **quantizer):
        arguments, shape = EXAMPLES[name]
        config = {"candidate_bits": (2, 4), "scale": "learned", **quantizer}
        return ENTRIES[name].quantized_class(**arguments, quantizer=config, name="layer"), shape

    def model(self, name, **quantizer):
        layer, shape = self.layer(name, **quantizer)
        inputs = keras.Input(shape)
        model = keras.Model(inputs, layer(inputs))
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
        x = example_inputs(name, 8)
        return model, layer, x, np.random.default_rng(1).standard_normal(model(x).shape).astype("float32")

    def test_signature_is_the_parents_and_quantizer(self, name):
        ours = inspect.signature(ENTRIES[name].quantized_class).parameters
        theirs = inspect.signature(ENTRIES[name].float_class).parameters
        assert [key for key in ours if key != "quantizer"] == list(theirs)
        assert all(ours[key].default == theirs[key].default for key in theirs)
        assert ours["quantizer"].default is None

    def test_config_round_trip(self, name):
        layer, _ = self.layer(name, pinned=True, granularity="tensor")
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert again.quantizer == QuantizerConfig((2, 4), pinned=True, granularity="tensor")

    @pytest.mark.parametrize("scale", ["learned", "statistical", "max_abs"])
    def test_save_and_load_give_back_every_bit_of_state(self, name, scale, tmp_path):
        model, layer, x, y = self.model(name, scale=scale)
        model.fit(x, y, epochs=2, verbose=0)
        for kernel, quantizer in layer.kernels():
            quantizer.set_width(2, kernel)
            quantizer.history = ({"epoch": 1, "bits": 2, "status": "optimal", "sensitivity": 0.5, "enbg": 0.1, "budget": {"compression": 8}},)
        model.fit(x, y, verbose=0)
        model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        fresh, fresh_layer, _, _ = self.model(name, scale=scale)
        fresh.load_weights(tmp_path / "model.weights.h5")
        for other, other_layer in ((loaded, loaded.layers[-1]), (fresh, fresh_layer)):
            assert len(other.weights) == len(model.weights)
            for mine, theirs in zip(model.weights, other.weights, strict=True):
                np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=mine.path)
            for (_, mine), (_, theirs) in zip(layer.kernels(), other_layer.kernels(), strict=True):
                assert theirs.history == mine.history
                assert theirs.width == 2
            np.testing.assert_array_equal(model.predict(x, verbose=0), other.predict(x, verbose=0))

    def test_what_reads_as_the_kernel_is_quantized_and_the_float_one_is_kept(self, name):
        _model, layer, _, _ = self.model(name)
        for kernel, quantizer in layer.kernels():
            quantizer.set_width(2, kernel)
            attribute = kernel.name
            used = np.asarray(getattr(layer, attribute))
            scale = np.broadcast_to(np.asarray(quantizer.scale(kernel.value)), used.shape)
            assert set(np.unique(np.round(used / scale))) <= {-2.0, -1.0, 0.0, 1.0}
            assert not np.array_equal(used, kernel.numpy())

    def test_a_training_step_moves_every_float_kernel_and_every_scale(self, name):
        model, _layer, x, y = self.model(name)
        before = {variable.path: variable.numpy() for variable in model.trainable_variables}
        model.fit(x, y, verbose=0)
        for variable in model.trainable_variables:
            assert not np.array_equal(before[variable.path], variable.numpy()), variable.path
        assert any("log_gain" in path for path in before)

    @pytest.mark.parametrize("bits", [2, 4])
    def test_accumulated_sensitivities_equal_the_explicit_bit_planes(self, name, bits):
        model, layer, x, y = self.model(name)
        for kernel, quantizer in layer.kernels():
            quantizer.set_width(bits, kernel)
        batches = [(x[:4], y[:4]), (x[4:], y[4:])]
        expected = {kernel.path: [] for kernel, _ in layer.kernels()}
        for inputs, targets in batches:
            quantized = {kernel.path: tf.identity(getattr(layer, kernel.name)) for kernel, _ in layer.kernels()}
            with tf.GradientTape() as tape:
                tape.watch(list(quantized.values()))
                loss = tf.reduce_mean((plain_call(layer, quantized, inputs) - targets) ** 2)
            gradients = {path: tf.convert_to_tensor(gradient) for path, gradient in tape.gradient(loss, quantized).items()}
            for kernel, quantizer in layer.kernels():
                scale = quantizer.scale(kernel.value)
                expected[kernel.path].append((gradients[kernel.path], bit_planes.normalised_bit_gradient(gradients[kernel.path], scale, bits)))
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(inputs) - targets) ** 2)
            tape.gradient(loss, model.trainable_variables)
        for kernel, quantizer in layer.kernels():
            assert read(quantizer.uses_seen) == read(quantizer.uses_finite) == 2
            gradients = [np.asarray(gradient) for gradient, _ in expected[kernel.path]]
            axes = tuple(axis for axis, size in enumerate(quantizer.gradient_abs_sum.shape) if size == 1)
            abs_sum = sum(np.abs(g).mean(axis=axes, keepdims=True) for g in gradients)
            square_sum = sum(np.square(g).mean(axis=axes, keepdims=True) for g in gradients)
            np.testing.assert_allclose(read(quantizer.gradient_abs_sum), abs_sum, rtol=1e-4)
            np.testing.assert_allclose(read(quantizer.gradient_square_sum), square_sum, rtol=1e-4)
            np.testing.assert_allclose(read(quantizer.bit_gradient_sum), sum(float(nbg) for _, nbg in expected[kernel.path]), rtol=1e-4)

    def test_gradients_that_are_not_finite_add_nothing(self, name):
        model, layer, x, _y = self.model(name)
        for value in (np.nan, np.inf):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(x) * value)
            tape.gradient(loss, model.trainable_variables)
        for _, quantizer in layer.kernels():
            assert read(quantizer.uses_seen) == 2
            assert read(quantizer.uses_finite) == 0
            assert np.all(read(quantizer.gradient_abs_sum) == 0)
            assert read(quantizer.bit_gradient_sum) == 0

    def test_a_new_width_starts_the_scale_anew_and_the_same_width_leaves_it(self, name):
        model, layer, x, y = self.model(name)
        model.fit(x, y, epochs=3, verbose=0)
        for kernel, quantizer in layer.kernels():
            learned = quantizer.log_gain.numpy()
            assert not quantizer.set_width(4, kernel)
            np.testing.assert_array_equal(quantizer.log_gain.numpy(), learned)
            assert quantizer.set_width(2, kernel)
            assert np.all(quantizer.log_gain.numpy() == 0)
            with pytest.raises(ValueError, match="cannot be 3 bits wide"):
                quantizer.set_width(3, kernel)


def plain_call(layer, kernels, inputs):
    """Calls a layer with given kernels in place of its own."""
    entry = next(entry for entry in registered() if entry.quantized_class is type(layer))
    config = {key: value for key, value in layer.get_config().items() if key != "quantizer"}
    plain = entry.float_class.from_config(config)
    plain.build((None, *inputs.shape[1:]))
    state = [(variable, kernels.get(f"layer/{variable.name}", None)) for variable in plain.variables]
    values = [value if value is not None else getattr(layer, variable.name).value for variable, value in state]
    output, _ = plain.stateless_call([v for (x, _), v in zip(state, values, strict=True) if x.trainable], [], tf.convert_to_tensor(inputs))
    return output


def test_kernels_of_a_model_are_found_with_their_paths():
    layer = ENTRIES["Dense"].quantized_class(2, quantizer={"candidate_bits": (3,), "pinned": True}, name="only")
    model = keras.Sequential([keras.Input((4,)), layer], name="model")
    (state,) = model_kernels(model)
    assert (state.kernel.path, state.kernel.weights, state.kernel.candidates, state.kernel.pinned, state.kernel.channels, state.kernel.macs) == (
        "model/only/kernel",
        8,
        (3,),
        True,
        2,
        8,
    )


@pytest.mark.parametrize("widths", [(), (1, 4), (9,), (2.5,), "48", None, (True,)])
def test_candidate_widths_are_checked(widths):
    with pytest.raises(ValueError, match=r"Received: .*Give integers from 2 to 8"):
        QuantizerConfig(candidate_bits=widths)


def test_a_config_of_a_newer_version_is_refused():
    with pytest.raises(ValueError, match="Install the newer bmpq_tf"):
        QuantizerConfig.of({**QuantizerConfig().to_dict(), "version": 99})
