"""Copies of models: what comes along, and what is refused because it would not."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import sequence_model, small_model

from bmpq_tf import SkippedLayersWarning, dequantize_model, quantize_model
from bmpq_tf.model import keras_graph
from bmpq_tf.model.kernels import model_kernels


def test_weights_are_copied_whatever_the_layers_around_are_called():
    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, name="dense")], name="my_dense"
    )
    inputs = keras.Input((4,))
    model = keras.Model(
        inputs,
        keras.layers.Dense(2, name="e")(keras.layers.Dense(3, name="nse")(inner(inputs))),
        name="dense",
    )
    quantized = quantize_model(model)
    for state, original in zip(
        model_kernels(quantized), [inner.layers[0], model.layers[2], model.layers[3]], strict=True
    ):
        np.testing.assert_array_equal(state.variable.numpy(), original.kernel.numpy())


def test_a_frozen_layer_inside_another_stays_frozen():
    model = sequence_model()
    model.get_layer("attention").query_dense.trainable = False
    states = {state.layer.name: state for state in model_kernels(quantize_model(model, pin=None))}
    assert [name for name, state in states.items() if not state.is_open] == ["query"]


def test_what_was_frozen_as_a_whole_can_be_thawed_as_a_whole():
    inputs = keras.Input((3,))
    base = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization()], name="base"
    )
    base.trainable = False
    quantized = quantize_model(
        keras.Model(inputs, keras.layers.Dense(2)(base(inputs, training=False)))
    )
    frozen = len(quantized.trainable_variables)
    assert quantized.get_layer("base").trainable is False
    quantized.get_layer("base").trainable = True
    # Kernel, bias and scales; gamma and beta.
    assert len(quantized.trainable_variables) == frozen + 5
    model = small_model()
    model.trainable = False
    assert not quantize_model(model).trainable_variables


class OwnCall(keras.Model):
    def __init__(self, units):
        inputs = keras.Input((3,))
        super().__init__(inputs, keras.layers.Dense(units)(inputs))

    def call(self, inputs, training=None, mask=None):
        return 100.0 * super().call(inputs, training, mask)


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


def test_a_class_that_keras_would_not_copy_is_refused_if_it_computes_or_trains_in_its_own_way():
    stepping = OwnStep([keras.Input((3,)), keras.layers.Dense(2)])
    for model, lost in (
        (OwnCall(2), "call"),
        (stepping, "train_step"),
        (keras.Sequential([keras.Input((3,)), OwnCall(2)]), "call"),
    ):
        with pytest.raises(TypeError, match=rf"would lose the {lost} of its class"):
            quantize_model(model)


def test_a_loss_of_ones_own_needs_no_registration_and_copies_are_not_compiled():
    def own_loss(labels, answers):
        return keras.ops.mean((labels - answers[:, 0]) ** 2, axis=-1)

    model = small_model()
    model.compile("sgd", own_loss)
    quantized = quantize_model(model)
    assert (model.compiled, quantized.compiled) == (True, False)
    quantized.compile("sgd", own_loss)
    assert not dequantize_model(quantized).compiled
    assert quantized.compiled


def test_what_preprocessing_layers_learned_from_data_comes_along():
    values = np.random.default_rng(0).normal(50.0, 10.0, (32, 4)).astype("float32")
    scaled = keras.layers.Normalization()
    scaled.adapt(values)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(scaled(inputs)))
    quantized = quantize_model(model)
    np.testing.assert_allclose(quantized(values), model(values), atol=0.05)
    np.testing.assert_array_equal(dequantize_model(quantized)(values), quantized(values))

    words = np.array([["red"], ["blue"], ["red"], ["green"]])
    lookup = keras.layers.StringLookup()
    lookup.adapt(words)
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, keras.layers.Embedding(8, 3)(lookup(inputs)))
    np.testing.assert_allclose(quantize_model(model)(words), model(words), atol=0.01)


def own_activation(x):
    return keras.ops.tanh(x) / 2


def test_lambdas_and_functions_of_ones_own_are_copied():
    inputs = keras.Input((3,))
    x = keras.layers.Lambda(lambda x: keras.ops.abs(x) * 2.0)(
        keras.layers.Dense(4, activation=own_activation)(inputs)
    )
    x = keras.layers.Lambda(lambda x: x + 1.0)(x)
    model = keras.Model(inputs, keras.layers.Activation(own_activation)(keras.layers.Dense(2)(x)))
    data = np.ones((1, 3), "float32")
    np.testing.assert_allclose(quantize_model(model)(data), model(data), atol=0.05)


def tanh(x):
    return 1.7 * keras.ops.tanh(2 * x / 3)


def test_an_activation_that_no_config_holds_is_named():
    leaky = functools.partial(keras.activations.leaky_relu, negative_slope=0.2)
    layer = keras.layers.Dense(3, activation=leaky, name="hidden")
    with pytest.raises(TypeError, match=r"Layer 'hidden' .* its activation is a functools.partial"):
        quantize_model(keras.Sequential([keras.Input((2,)), layer]), pin=None)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_functions_are_copied_whatever_their_names():
    def leaky(slope):
        def act(x):
            return keras.ops.maximum(slope * x, x)

        return act

    one, other = leaky(0.1), leaky(0.3)
    inputs = keras.Input((2, 3))
    x = inputs
    for activation in (one, other, tanh, "tanh", lambda x: x / (1 + keras.ops.abs(x)), tf.nn.relu):
        x = keras.layers.Dense(3, activation=activation)(x)
    # Layers inside layers go by the names in their configs.
    x = keras.layers.TimeDistributed(keras.layers.Dense(3, activation=other))(x)
    x = keras.layers.TimeDistributed(keras.layers.RNN(keras.layers.LSTMCell(2, activation=tanh)))(
        keras.layers.Reshape((2, 1, 3))(x)
    )
    x = keras.layers.TimeDistributed(keras.layers.LSTM(2, activation=tanh))(
        keras.layers.Reshape((2, 1, 2))(x)
    )
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    quantized = quantize_model(model)
    for copy in (
        quantized,
        dequantize_model(quantized),
        dequantize_model(quantized, on_grid=False),
    ):
        mine, theirs = (
            [getattr(layer, "activation", None) for layer in keras_graph.sublayers(of)]
            for of in (model, copy)
        )
        assert [function for function in theirs if function] == [
            function for function in mine if function
        ]
    data = np.random.default_rng(0).normal(size=(4, 2, 3)).astype("float32")
    np.testing.assert_allclose(
        dequantize_model(quantized, on_grid=False)(data), model(data), atol=1e-6
    )


@keras.saving.register_keras_serializable("tests")
class Scaling(keras.layers.Layer):
    """Holds a function under another name than its config's key, and a layer with a function that
    reads its own weight.
    """

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self._function = keras.activations.get(activation)
        self.inner = keras.layers.Dense(3, activation=lambda x: x * self.factor)

    def build(self, shape):
        self.factor = self.add_weight((), "ones", name="factor")
        self.inner.build(shape)

    def call(self, inputs):
        return self._function(self.inner(inputs))

    def get_config(self):
        return {**super().get_config(), "activation": keras.activations.serialize(self._function)}


def test_what_a_layer_of_ones_own_makes_itself_is_left_to_it():
    inputs = keras.Input((3,))
    model = keras.Model(
        inputs, keras.layers.Dense(2)(Scaling(own_activation, name="scaling")(inputs))
    )
    copy = quantize_model(model)
    data = np.ones((1, 3), "float32")
    before = copy(data)
    model.get_layer("scaling").factor.assign(7.0)
    np.testing.assert_array_equal(copy(data), before)
    copy.get_layer("scaling").factor.assign(7.0)
    assert np.abs(copy(data) - before).max() > 0.01


def test_two_functions_of_one_name_in_layers_of_ones_own_are_refused():
    def other_activation(x):
        return keras.ops.relu(x)

    other_activation.__name__ = "own_activation"
    inputs = keras.Input((3,))
    x = keras.layers.Dense(3, activation=other_activation)(Scaling(own_activation)(inputs))
    quantize_model(keras.Model(inputs, keras.layers.Dense(2)(x)))
    with pytest.raises(ValueError, match=r"one name.*Received: 'own_activation'"):
        quantize_model(keras.Model(inputs, keras.layers.Dense(2)(Scaling(other_activation)(x))))


def test_a_model_in_two_wrappers_is_copied():
    inputs = keras.Input((2, 3))
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    x = keras.layers.TimeDistributed(inner, name="again")(
        keras.layers.TimeDistributed(inner)(inputs)
    )
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    data = np.ones((1, 2, 3), "float32")
    with pytest.warns(SkippedLayersWarning):
        np.testing.assert_allclose(quantize_model(model)(data), model(data), atol=0.05)


def test_operators_between_layers_are_kept():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, name="dense")(inputs)
    float_model = keras.Model(inputs, keras.ops.relu(x + 3.0) * x)
    model = quantize_model(float_model, pin=None)
    data = np.linspace(-2, 2, 8, dtype="float32").reshape(2, 4)
    np.testing.assert_allclose(model(data), float_model(data), atol=0.2)


@pytest.mark.parametrize("is_frozen", [False, True])
def test_layers_that_share_variables_load_as_they_were_saved(is_frozen, tmp_path):
    part = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    part.add(keras.layers.BatchNormalization())
    part.trainable = not is_frozen
    inputs = [keras.Input((2, 4)), keras.Input((2, 4))]
    both = [keras.layers.TimeDistributed(part, name=f"t{n}")(x) for n, x in enumerate(inputs)]
    total = keras.layers.Flatten()(keras.layers.Add()(both))
    model = keras.Model(inputs, keras.layers.Dense(2)(total))
    with pytest.warns(SkippedLayersWarning, match="also inside"):
        model = quantize_model(model, pin=None)
    for variable in model.weights:
        if variable.name in ("gamma", "beta"):
            variable.assign(variable + np.arange(1, 4))
    data = [np.random.default_rng(n).standard_normal((5, 2, 4)) for n in range(2)]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(data), model(data), rtol=1e-6)


def test_a_lambda_of_what_no_config_takes_is_copied():
    inputs = keras.Input((4,))
    doubled = keras.layers.Lambda(functools.partial(keras.ops.multiply, 2.0))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(doubled))
    copy = quantize_model(model, (8,), pin=None)
    data = np.ones((3, 4), "float32")
    np.testing.assert_allclose(copy(data), model(data), atol=0.1)


@keras.saving.register_keras_serializable("tests")
class AsLabels(keras.Sequential):
    def predict_step(self, data):
        return keras.ops.argmax(super().predict_step(data), -1)


def test_functions_of_one_name_stay_apart_inside_composites():
    def scaled(factor):
        def scale(x):
            return factor * x

        return scale

    x = inputs = keras.Input((2, 4))
    for factor in (2.0, 3.0):
        x = keras.layers.TimeDistributed(keras.layers.Lambda(scaled(factor)))(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    data = np.ones((3, 2, 4), "float32")
    np.testing.assert_allclose(quantize_model(model, (8,), pin=None)(data), model(data), atol=0.2)


def test_a_step_of_predict_that_a_copy_would_lose_is_refused():
    model = AsLabels([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(TypeError, match="would lose the predict_step of its class"):
        quantize_model(model, pin=None)


def test_an_input_that_may_be_missing_stays_so():
    inputs = [keras.Input((3,), name="a"), keras.Input((3,), name="b", optional=True)]

    @keras.saving.register_keras_serializable("tests")
    class OrZeros(keras.layers.Layer):
        def call(self, first, second):
            return first if second is None else first + second

    outputs = keras.layers.Dense(2)(OrZeros()(*inputs))
    copy = quantize_model(keras.Model(inputs, outputs), pin=None)
    data = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(copy([data, None]), copy([data, 0 * data]))
