"""Intervals and kernels that nothing can be decided for."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled, fitted, small_data, small_model

import bmpq_tf
from bmpq_tf import (
    AllocationError,
    BMPQCallback,
    InfeasibleBudgetError,
    quantize_model,
)
from bmpq_tf.model.kernels import model_kernels
from bmpq_tf.training import device_budget

IMAGES, LABELS = small_data()


def test_an_interval_without_finite_gradients_decides_nothing(capsys):
    def poisoned(y_true, y_pred):
        return tf.reduce_mean(y_pred) * np.nan

    model = compiled(
        quantize_model(small_model(), (2, 4), pin="ends"),
        loss=poisoned,
        optimizer=keras.optimizers.SGD(0.0),
    )
    with pytest.warns(UserWarning, match="Training ended over the budget"):
        fitted(BMPQCallback("10x"), epochs=3, model=model)
    assert [state.bits for state in model_kernels(model)] == [8, 4, 4, 8]
    assert "a kernel, or half of its gradients, was not finite" in capsys.readouterr().out


def test_a_kernel_that_is_not_finite_keeps_the_widths_and_the_fit(capsys):
    class Breaks(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                kernel = self.model.get_layer("hidden").kernels()[0][0]
                kernel.assign(kernel * np.nan)

    model = compiled(quantize_model(small_model(), (2, 4), pin="ends"))
    callbacks = [BMPQCallback("8x"), Breaks()]
    model.fit(IMAGES, LABELS, epochs=6, verbose=0, callbacks=callbacks)
    assert "a kernel, or half of its gradients, was not finite" in capsys.readouterr().out


def test_a_frozen_kernel_keeps_its_width_and_is_named(capsys):
    model = quantize_model(small_model(), (2, 4), pin="ends")
    model.get_layer("depthwise").trainable = False
    fitted(BMPQCallback("8x"), epochs=3, model=compiled(model))
    assert {state.layer.name: state.bits for state in model_kernels(model)}["depthwise"] == 4
    assert "without gradients, so kept: depthwise/kernel" in capsys.readouterr().out
    with pytest.raises(
        InfeasibleBudgetError, match=r"'depthwise/kernel' keeps 4 bits, as no gradients reach it"
    ):
        BMPQCallback("30x").check(model, 3)


def test_a_kernel_that_no_gradient_reaches_keeps_its_width_and_is_named(capsys):
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Flatten()(inputs)
    unused = keras.layers.Dense(2, name="unused")(x)
    used = keras.layers.Dense(3, name="used")(keras.layers.Dense(6, name="hidden")(x))
    model = quantize_model(keras.Model(inputs, [used, unused]), (2, 4), pin=None)
    model.compile(
        "sgd",
        loss=[keras.losses.SparseCategoricalCrossentropy(from_logits=True), None],
        jit_compile=False,
    )
    with pytest.warns(UserWarning, match="Gradients do not exist for variables"):
        model.fit(IMAGES, LABELS, epochs=3, verbose=0, callbacks=[BMPQCallback("10x")])
    assert {state.layer.name: state.bits for state in model_kernels(model)} == {
        "unused": 4,
        "hidden": 2,
        "used": 4,
    }
    assert "without gradients, so kept: unused/kernel" in capsys.readouterr().out


def test_a_layer_that_no_call_reaches_has_no_kernels():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten, self.used, self.unused = (
                keras.layers.Flatten(),
                bmpq_tf.layers.QuantDense(3),
                bmpq_tf.layers.QuantDense(4),
            )

        def build(self, input_shape):
            self.used.build((None, 72))

        def call(self, inputs):
            return self.used(self.flatten(inputs))

    model = compiled(Model())
    model(IMAGES)
    callback = BMPQCallback("10x", verbose=0)
    model.fit(IMAGES, LABELS, epochs=3, verbose=0, callbacks=[callback])
    assert [len(allocation["bits"]) for allocation in callback.history] == [1, 1]


@pytest.mark.slow
def test_a_head_that_joined_later_was_in_the_last_allocations():
    backbone, _ = fitted(BMPQCallback("10x", verbose=0), epochs=3)
    head = bmpq_tf.layers.QuantDense(3, name="new")
    model = compiled(keras.Model(backbone.inputs, head(backbone.outputs[0])))
    callback = BMPQCallback("8x", verbose=0)
    model.fit(IMAGES, LABELS, epochs=3, verbose=0, callbacks=[callback])
    assert [
        ("new/kernel" in allocation["bits"], allocation["budget"]["compression"])
        for allocation in callback.history
    ] == [
        (False, 10.0),
        (False, 10.0),
        (True, 8.0),
        (True, 8.0),
    ]


def test_a_solver_that_fails_does_not_end_the_training(monkeypatch):
    def failing(*arguments, **keywords):
        raise AllocationError("no answer in time")

    monkeypatch.setattr(device_budget, "solve_allocation", failing)
    with pytest.warns(
        UserWarning, match=r"the widths stay. no answer in time|over the budget"
    ) as caught:
        _, history = fitted(BMPQCallback("10x", verbose=0), epochs=3)
    assert len(history.history["loss"]) == 3
    assert (
        sum("the widths stay. no answer in time" in str(warning.message) for warning in caught) == 2
    )
