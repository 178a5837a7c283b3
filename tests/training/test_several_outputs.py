"""Models of several outputs and losses, and layers that are called twice, are measured whole."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled, small_data

from bmpq_tf import BMPQCallback, dequantize_model, quantize_model
from bmpq_tf.model.kernels import measurement, model_kernels, read
from bmpq_tf.training.gradient_sums import GradientSums

pytestmark = pytest.mark.apart

_, LABELS = small_data()


def two_headed(shared: bool) -> keras.Model:
    """Two inputs, through one layer or through two of the same weights, and two outputs."""
    keras.utils.set_random_seed(5)
    one, two = keras.Input((6,), name="one"), keras.Input((6,), name="two")
    layers = [
        keras.layers.Dense(5, activation="tanh", name=name)
        for name in (("shared",) if shared else ("first", "second"))
    ]
    both = keras.layers.Concatenate()([layers[0](one), layers[-1](two)])
    layers[-1].set_weights(layers[0].get_weights())
    outputs = {
        "label": keras.layers.Dense(
            3, name="label", kernel_initializer=keras.initializers.GlorotUniform(1)
        )(both)
    }
    outputs["value"] = keras.layers.Dense(
        2, name="value", kernel_initializer=keras.initializers.GlorotUniform(2)
    )(both)
    return keras.Model([one, two], outputs)


def two_headed_data() -> tuple[list, dict, dict]:
    generator = np.random.default_rng(2)
    x = [generator.standard_normal((32, 6)).astype("float32") for _ in range(2)]
    y = {"label": LABELS, "value": generator.standard_normal((32, 2)).astype("float32")}
    return x, y, {name: generator.uniform(0, 3, 32).astype("float32") for name in y}


def compile_two_headed(model: keras.Model) -> keras.Model:
    return compiled(
        model,
        optimizer=keras.optimizers.SGD(0.0),
        loss={
            "label": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "value": "mse",
        },
        loss_weights={"label": 1.0, "value": 0.25},
    )


def test_several_outputs_losses_and_sample_weights_measure_the_gradients_of_the_whole_loss():
    model = compile_two_headed(quantize_model(two_headed(shared=False), (2, 4), pin=None))
    x, y, weight = two_headed_data()
    model.fit(x, y, sample_weight=weight, batch_size=16, shuffle=False, verbose=0)
    # Plain Keras layers whose kernels are what the quantized ones read: the gradients are dL/dw_q.
    twin = compile_two_headed(dequantize_model(model))
    gradients = {}
    for part in (slice(0, 16), slice(16, 32)):
        inputs, targets, weights = keras.tree.map_structure(
            lambda array, part=part: tf.constant(array[part]), (x, y, weight)
        )
        with tf.GradientTape() as tape:
            loss = twin.compute_loss(inputs, targets, twin(inputs), weights)
        for variable, gradient in zip(
            twin.trainable_variables, tape.gradient(loss, twin.trainable_variables), strict=True
        ):
            gradients.setdefault(variable.path, []).append(gradient.numpy())
    for state in model_kernels(model):
        measured, explicit = measurement(state), np.stack(gradients[state.kernel.path])
        np.testing.assert_allclose(
            measured.gradient_abs[0], np.abs(explicit).mean((0, 1)), rtol=1e-4
        )
        np.testing.assert_allclose(
            measured.gradient_square[0], np.square(explicit).mean((0, 1)), rtol=1e-4
        )


def test_the_uses_of_a_shared_layer_add_up():
    decided = {}
    for shared in (True, False):
        model = compile_two_headed(quantize_model(two_headed(shared), (2, 4), pin=None))
        callback = BMPQCallback("8x", verbose=0)
        x, y, _ = two_headed_data()
        model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=[callback])
        decided[shared] = callback.history[0]
    for key in ("sensitivity", "enbg"):
        once, twice = decided[False][key], decided[True][key]
        assert twice["shared/kernel"] == pytest.approx(
            once["first/kernel"] + once["second/kernel"], rel=1e-4
        )
        assert twice["label/kernel"] == pytest.approx(once["label/kernel"], rel=1e-4)


def test_where_all_open_layers_are_called_twice_sums_are_divided_by_the_steps():
    inputs = keras.Input((6,)), keras.Input((6,))
    shared = keras.layers.Dense(4, name="shared")
    difference = keras.layers.Subtract()([shared(one) for one in inputs])
    model = quantize_model(keras.Model(inputs, difference), (2, 4), pin=None)
    model.compile("sgd", "mse")
    sums = GradientSums(model_kernels(model))
    one, other = np.random.default_rng(0).standard_normal((2, 32, 6)).astype("float32")
    model.fit([one, other], np.zeros((32, 4)), batch_size=16, verbose=0)
    seen = model.get_layer("shared").kernel_quantizer.accumulated()
    assert seen.uses_seen == 4
    assert sums.batches_seen() == 2
    assert sums.measured()["shared/kernel"].enbg == pytest.approx(seen.bit_gradient / 2)


@pytest.mark.parametrize("open_heads", [True, False])
@pytest.mark.slow
def test_a_decision_of_this_epoch_is_not_taken_again_after_a_restart_whatever_counts_twice(
    open_heads,
):
    heads = {} if open_heads else {"label": 4, "value": 4}
    model = compile_two_headed(
        quantize_model(two_headed(shared=True), (2, 4), pin=None, overrides=heads)
    )
    x, y, _ = two_headed_data()
    callback = BMPQCallback("8x", verbose=0)
    callbacks = keras.callbacks.CallbackList([callback], model=model, epochs=3, steps=2)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    model.fit(x, y, batch_size=16, verbose=0)
    callbacks.on_epoch_begin(1)
    # Killed after one of two mini-batches, each of which goes through the shared layer twice.
    model.train_on_batch([part[:16] for part in x], {name: part[:16] for name, part in y.items()})
    shared = model.get_layer("shared").kernel_quantizer
    assert read(shared.uses_seen) == 2
    callbacks.on_epoch_begin(1)
    assert len(callback.history) == 1
