"""Who trains a kernel: its loss scale is divided out, and its memory of a scale starts anew."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_quantized_part import Gan, X, Y, critic, net, quantized

from bmpq_tf import BMPQCallback, QuantizationConfig, assign_bits, quantize_model
from bmpq_tf.model.kernels import model_kernels
from bmpq_tf.training.optimizer_state import optimizers_in, reset_slots


class Wrapper(keras.Model):
    """Trains a network with whatever `take` does."""

    def __init__(self, network, take):
        super().__init__()
        self.network, self.take = network, take

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.network(x, training=True) - y))
            loss = self.take.scale(self, loss)
        self.take.apply(self, tape, loss)
        return {"loss": loss}


class Take:
    """Trains by an optimizer that `find` gives of the wrapper, or that nobody but this knows."""

    def __init__(self, find):
        self.find = find

    def scale(self, model, loss):
        return self.find(model).scale_loss(loss)

    def apply(self, model, tape, loss):
        weights = model.network.trainable_weights
        gradients = tape.gradient(loss, weights)
        self.find(model).apply_gradients(zip(gradients, weights, strict=True))


def fitted(model, *callbacks, **arguments):
    return model.fit(
        X, Y, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=callbacks, **arguments
    )


def gains(optimizer) -> list[float]:
    return [float(abs(v.numpy()).max()) for v in optimizer.variables if "log_gain" in v.path]


@pytest.mark.parametrize("where", ["attribute", "dict of a part"])
def test_the_slots_of_an_optimizer_of_ones_own_start_anew(where):
    mine, network = keras.optimizers.Adam(1e-2), quantized()
    model = Wrapper(network, Take(lambda model: mine))
    model.compile()
    if where == "attribute":
        model.mine = mine
    else:
        network.optimizers = {"all": [mine]}
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append(gains(mine))
    )
    fitted(model, BMPQCallback("8x", verbose=0), look)
    assert seen[0] == []
    assert not any(seen[1])
    assert all(seen[2][::2])
    assert not model.optimizer.built


def test_an_optimizer_that_nobody_can_find_is_an_error_after_one_step():
    mine, network = keras.optimizers.SGD(1e-2), quantized()
    model = Wrapper(network, Take(lambda model: mine))
    model.compile("adam")
    with pytest.raises(
        ValueError,
        match=(
            r"Model 'wrapper.*' has no optimizer that trains student_1/kernel.*, nor has 'student'"
            r".*Received: 'adam' \(has taken no step\).*model.my_optimizer = optimizer"
        ),
    ):
        fitted(model, BMPQCallback("8x", verbose=0))
    assert int(mine.iterations) == 1


def test_scales_that_follow_a_rule_need_no_optimizer_that_is_found():
    mine, config = keras.optimizers.SGD(1e-2), QuantizationConfig(scale="max_abs")
    model = Wrapper(
        quantize_model(net("student"), config=config, pin=None), Take(lambda model: mine)
    )
    model.compile("adam")
    assert fitted(model, BMPQCallback("8x", verbose=0)).history["bmpq_within_budget"][-1] == 1.0


def sensitivities(scales: tuple) -> dict[str, float]:
    """Of a generator, at its first decision, with optimizers of these loss scales."""
    keras.utils.set_random_seed(3)
    generator = quantized("generator")
    optimizers = [
        keras.optimizers.SGD(0.0)
        if scale is None
        else keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0), initial_scale=scale)
        for scale in scales
    ]
    gan = Gan(generator, critic())
    gan.compile(*optimizers, jit_compile=False)
    callback = BMPQCallback("8x", verbose=0)
    fitted(gan, callback)
    return callback.history[1]["sensitivity"]


@pytest.mark.parametrize("scales", [(4.0, None), (None, 4.0), (4.0, 64.0), (64.0, 4.0)])
def test_of_two_loss_scales_the_generators_is_divided_out(scales):
    assert sensitivities(scales) == pytest.approx(sensitivities((None, None)), rel=1e-4)


def test_a_loss_scale_that_a_loop_of_ones_own_was_traced_without_is_an_error_unless_it_is_built():
    def by_own_loop(build):
        gan = Gan(quantized("generator"), critic())
        scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0))
        # The likely one is the first that is found.
        gan.first = keras.optimizers.SGD(0.0)
        gan.compile(scaling, gan.first)
        if build:
            scaling.build(gan.generator.trainable_variables)
            gan.first.build(gan.critic.trainable_variables)
        callbacks = keras.callbacks.CallbackList(
            [BMPQCallback("8x", verbose=0)], model=gan, epochs=3, steps=1
        )
        callbacks.on_train_begin()
        callbacks.on_epoch_begin(0)
        tf.function(gan.train_step)((tf.constant(X), tf.constant(Y)))
        callbacks.on_epoch_end(0, {})

    with pytest.raises(ValueError, match=r"which optimizer trains .*optimizer.build\(variables\)"):
        by_own_loop(build=False)
    by_own_loop(build=True)


def test_slots_are_found_in_wrappers_of_optimizers_and_under_tensorflows_names():
    network = quantized()
    states = {state.layer.name: state for state in model_kernels(network)}
    first, last = (states[name].quantizer.log_gain for name in ("student_1", "student_3"))
    inner = {"adam": keras.optimizers.Adam(), "sgd": keras.optimizers.SGD(momentum=0.9)}
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(inner["sgd"], {"student_1/.*": inner["adam"]})
    )
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adagrad())
    tensors = keras.optimizers.Adagrad(initial_accumulator_value=0.3)
    several.build(network.trainable_variables)
    scaling.build(network.trainable_variables)
    tensors.build([variable.value for variable in network.trainable_variables])
    for optimizer in (several, scaling, tensors):
        for variable in optimizer.variables:
            if "log_gain" in variable.name:
                variable.assign(np.full(variable.shape, 7.0))
        reset_slots(optimizer, first)
        # Of a variable that it does not train it has nothing.
        reset_slots(optimizer, keras.Variable(0.0))
    slots = {
        name: [
            (float(np.max(v.numpy())), "student_1" in v.name)
            for v in optimizer.variables
            if "log_gain" in v.name
        ]
        for name, optimizer in {**inner, "scaling": scaling, "tensors": tensors}.items()
    }
    assert slots["adam"] == [(0.0, True), (0.0, True)]
    assert slots["sgd"] == [(7.0, False), (7.0, False)]
    assert [value for value, of_first in slots["scaling"] if of_first] == [pytest.approx(0.1)]
    assert [value for value, of_first in slots["tensors"] if of_first] == [pytest.approx(0.3)]
    assert {value for value, of_first in slots["tensors"] if not of_first} == {7.0}
    reset_slots(several, last)
    assert any(float(np.max(v.numpy())) == 0.0 for v in inner["sgd"].variables if "_3" in v.name)


def test_widths_that_are_given_by_hand_start_every_optimizers_memory_anew():
    mine, network = keras.optimizers.Adam(1e-2), quantized()
    model = Wrapper(network, Take(lambda model: mine))
    model.compile()
    network.mine = mine
    fitted(model)
    assert all(gains(mine)[::2])
    assign_bits(network, {"student_1/kernel": 2})
    assert [value == 0.0 for value in gains(mine)[:4]] == [True, True, False, False]


def test_a_wrapped_optimizer_is_told_of_once():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    inner = keras.optimizers.Adam()
    model.compile(keras.optimizers.LossScaleOptimizer(inner))
    model.inner, model.others = inner, [inner, {"one": keras.optimizers.SGD()}]
    assert [one.name for one in optimizers_in(model)] == ["loss_scale_optimizer", "sgd"]


class Accumulating(keras.Model):
    """Adds up the gradients of two batches by hand."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.sums = [tf.Variable(tf.zeros(w.shape)) for w in network.trainable_weights]
        self.batch = tf.Variable(0)

    def train_step(self, data):
        x, y = data
        weights = self.network.trainable_weights
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.network(x, training=True) - y))
        for total, gradient in zip(self.sums, tape.gradient(loss, weights), strict=True):
            total.assign_add(gradient)
        self.batch.assign_add(1)

        def step():
            self.optimizer.apply([total / 2.0 for total in self.sums], weights)
            for total in self.sums:
                total.assign(tf.zeros(total.shape))

        tf.cond(self.batch % 2 == 0, step, lambda: None)
        return {"loss": loss}


def test_a_step_that_adds_up_gradients_of_several_batches_trains():
    model = Accumulating(quantized())
    model.compile("sgd", jit_compile=False)
    assert fitted(model, BMPQCallback("8x", verbose=0)).history["bmpq_within_budget"][-1] == 1.0


def test_a_loss_scale_is_that_of_the_fit_that_runs():
    model = quantized()
    model.compile(keras.optimizers.SGD(1e-2, loss_scale_factor=64.0), "mse", jit_compile=False)
    fitted(model, BMPQCallback("8x", verbose=0))
    told = [state.quantizer._loss_factor() for state in model_kernels(model) if state.quantizer]
    assert set(told) == {1.0}
