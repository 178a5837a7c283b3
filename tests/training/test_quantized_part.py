"""What is trained beside the network: the budget is of the quantized model, whatever trains it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bmpq_tf
from bmpq_tf import BMPQCallback, InfeasibleBudgetError, quantize_model
from bmpq_tf.model.kernels import model_kernels, total_bits
from bmpq_tf.training.quantized_part import quantized_part

X = np.random.default_rng(0).standard_normal((32, 8)).astype("float32")
Y = X @ np.random.default_rng(1).standard_normal((8, 4)).astype("float32")


def net(name, width=16, outputs=4) -> keras.Model:
    inputs = keras.Input((8,))
    x = keras.layers.Dense(width, activation="relu", name=f"{name}_1")(inputs)
    x = keras.layers.Dense(width, activation="relu", name=f"{name}_2")(x)
    return keras.Model(inputs, keras.layers.Dense(outputs, name=f"{name}_3")(x), name=name)


def quantized(name="student", **kwargs) -> keras.Model:
    return quantize_model(net(name, **kwargs), pin=None)


def assert_allocated(fitted, part, budget=8.0, callback=None, **fit):
    """Trains, and asks that the budget holds for the part, as logs and history say."""
    callback = callback or BMPQCallback(f"{budget}x", verbose=0)
    told = fitted.fit(
        X, Y, batch_size=8, epochs=3, verbose=0, callbacks=[callback], shuffle=False, **fit
    ).history
    states = model_kernels(part)
    assert 32 * sum(s.kernel.weights for s in states) >= budget * total_bits(states)
    assert told["bmpq_within_budget"] == [0.0, 1.0, 1.0]
    assert [len(decision["bits"]) for decision in callback.history] == [3, 3]
    assert all(value > 0 for value in callback.history[0]["sensitivity"].values())


class Gan(keras.Model):
    """A generator and a critic, as Keras's examples write them: no `call`, two optimizers."""

    def __init__(self, generator, critic):
        super().__init__()
        self.generator, self.critic = generator, critic

    def compile(self, of_generator, of_critic, **kwargs):
        super().compile(**kwargs)
        self.of_generator, self.of_critic = of_generator, of_critic

    def train_step(self, data):
        x, real = data
        made = self.generator(x, training=True)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.critic(made)) - tf.reduce_mean(self.critic(real))
            loss = self.of_critic.scale_loss(loss)
        self._apply(self.of_critic, tape, loss, self.critic)
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.critic(self.generator(x, training=True)))
            loss = self.of_generator.scale_loss(loss)
        self._apply(self.of_generator, tape, loss, self.generator)
        return {"loss": loss}

    def _apply(self, optimizer, tape, loss, part):
        weights = part.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))


def critic(name="critic") -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name=name)], name=name)


def test_a_generator_is_found_beside_its_critic():
    generator = quantized("generator")
    gan = Gan(generator, critic())
    gan.compile(keras.optimizers.Adam(1e-3), keras.optimizers.SGD(1e-3))
    assert not gan.built
    assert_allocated(gan, generator)


class Momentum(keras.Model):
    """A quantized network that follows a float moving average of itself."""

    def __init__(self, online, target):
        super().__init__()
        self.target, self.online = target, online
        self.target.trainable = False

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape() as tape:
            gap = self.online(x, training=True) - self.target(x + 0.1)
            loss = tf.reduce_mean(tf.square(gap))
        weights = self.online.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        for slow, layer in zip(self.target.layers[1:], self.online.layers[1:], strict=True):
            slow.kernel.assign(0.9 * slow.kernel + 0.1 * layer._kernel)
        return {"loss": loss}


def test_a_network_is_found_beside_its_momentum_encoder():
    online = quantized()
    fitted = Momentum(online, net("target", width=16))
    fitted.compile("adam")
    assert_allocated(fitted, online)


class Perceptual(keras.Model):
    """A network whose loss is a distance between another's features, added in `call`."""

    def __init__(self, network, features):
        super().__init__()
        self.network, self.features = network, features
        self.features.trainable = False

    def call(self, inputs):
        outputs = self.network(inputs)
        self.add_loss(tf.reduce_mean(tf.square(self.features(inputs)[:, :4] - outputs)))
        return outputs


def test_a_network_is_found_beside_a_frozen_one_that_its_loss_is_of():
    network = quantized()
    fitted = Perceptual(network, net("features", width=64))
    # However deep it lies.
    assert quantized_part(Momentum(fitted, net("target"))) is network
    fitted.compile("adam", "mse")
    assert_allocated(fitted, network)


@pytest.mark.parametrize("named", [True, False])
def test_what_extracts_a_students_features_is_no_second_model(named, capsys):
    student = quantized()
    losses = keras.distillation.FeatureDistillation(
        teacher_layer_name="teacher_2", student_layer_name="student_2"
    )
    fitted = keras.distillation.Distiller(
        teacher=net("teacher"), student=student, distillation_losses=losses
    )
    fitted.compile("adam", "mse")
    callback = BMPQCallback("8x", model=student if named else None)
    assert_allocated(fitted, student, callback=callback)
    assert "BMPQ the budget is of 'student' alone, in 'distiller'" in capsys.readouterr().out
    # Before and after fit, of the part.
    assert BMPQCallback("9x", model=student).check(student, 3) is None
    assert BMPQCallback("9x").check(fitted, 3) is None


def test_of_several_quantized_models_one_is_named():
    there, back = quantized("there"), quantized("back")
    fitted = Gan(there, keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), back]))
    fitted.compile(keras.optimizers.Adam(), keras.optimizers.Adam())
    start = there.get_weights()
    with pytest.raises(
        ValueError, match=r"Several .* in 'gan'. Received: 'there', 'sequential.*'\. .*model=\.\.\."
    ):
        fitted.fit(X, Y, epochs=3, verbose=0, callbacks=[BMPQCallback("8x")])
    for weight, value in zip(there.get_weights(), start, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert_allocated(fitted, there, callback=BMPQCallback("8x", model=there, verbose=0))
    assert {state.bits for state in model_kernels(back)} == {8}
    other = BMPQCallback("6x", model=back, verbose=0)
    told = fitted.fit(
        X, Y, epochs=3, verbose=0, callbacks=[BMPQCallback("12x", model=there, verbose=0), other]
    ).history
    assert told["bmpq_within_budget"] == [0.0, 1.0, 1.0]
    assert told["bmpq_compression"][-1] > 12 > told["bmpq_compression_back"][-1] > 6
    assert [decision["budget"] for decision in other.history] == [{"compression": 6.0}] * 2
    assert {state.bits for state in model_kernels(there)} <= {2, 4}


def test_a_model_beside_the_fitted_one_is_named():
    hidden = quantized()

    class Outside(keras.Model):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(hidden(x, training=True) - y))
            weights = hidden.trainable_variables
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            return {"loss": loss}

    fitted = Outside()
    fitted.compile("adam")
    with pytest.raises(ValueError, match=r"is not built"):
        BMPQCallback("8x").check(fitted, 3)
    assert_allocated(fitted, hidden, callback=BMPQCallback("8x", model=hidden, verbose=0))


class Network(keras.Model):
    """A subclassed network: what is trained, and what is deployed, is all of it."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = list(parts)

    def call(self, inputs):
        for part in self.parts:
            inputs = part(inputs)
        return inputs


def test_a_network_is_whole_whatever_it_is_made_of():
    with_head = Network(quantized(outputs=8), keras.layers.Dense(4, name="head"))
    with_head(X)
    assert quantized_part(with_head) is with_head
    of_blocks = Network(quantized("one", outputs=8), quantized("two"))
    assert quantized_part(of_blocks) is of_blocks
    own = Network(quantized("one", outputs=8), bmpq_tf.layers.QuantDense(4))
    assert quantized_part(own) is own


def test_a_graph_counts_all_and_says_how_to_count_a_part():
    network = quantized()
    inputs = keras.Input((8,))
    whole = keras.Model(
        inputs, keras.layers.Dense(2048, name="features")(network(inputs)), name="whole"
    )
    assert quantized_part(whole) is whole
    with pytest.raises(
        InfeasibleBudgetError,
        match=r"features.*the budget is of 'student' inside 'whole' alone, say so: .*model=\.\.\.",
    ):
        BMPQCallback("8x").check(whole, 3)
    BMPQCallback("8x", model=network).check(whole, 3)


def test_what_is_no_model_is_refused():
    with pytest.raises(
        ValueError, match=r"model is the quantized keras.Model.*Received: 'student'"
    ):
        BMPQCallback("8x", model="student")
    with pytest.raises(ValueError, match=r"'teacher' has no quantized layers.*model=\.\.\."):
        BMPQCallback("8x", model=net("teacher")).check(net("other"), 3)
