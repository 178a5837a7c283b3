"""Schedules and losses against values worked out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import small_model

from bmpq_research.experiments.losses import ClassificationLoss, accuracy, with_teacher
from bmpq_research.experiments.recipe import sgd
from bmpq_research.experiments.restart import RestartRate
from bmpq_tf import quantize_model
from bmpq_tf.model.kernels import model_kernels
from bmpq_tf.tuning.recipe import StepDecay

LOGITS = np.array([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]], np.float32)


def softmax(values):
    exponents = np.exp(values - values.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def test_step_decay_rises_and_falls_twice():
    rate = StepDecay(0.5, [50, 75], warmup_steps=10)
    told = [float(rate(step)) for step in (0, 5, 10, 49, 50, 74, 75, 99)]
    np.testing.assert_allclose(told, [0.05, 0.275, 0.5, 0.5, 0.05, 0.05, 0.005, 0.005], rtol=1e-6)
    optimizer = sgd(learning_rate=0.5, steps=100, warmup_steps=10, schedule="step")
    again = keras.optimizers.SGD.from_config(optimizer.get_config())
    assert float(again.learning_rate) == pytest.approx(0.05)
    with pytest.raises(
        ValueError, match=r"Unknown schedule. Received: schedule='linear'. Known: cosine, step"
    ):
        sgd(learning_rate=0.5, steps=100, schedule="linear")


def test_cosine_rises_and_ends_at_zero():
    rate = sgd(learning_rate=0.5, steps=100, warmup_steps=10)._learning_rate
    np.testing.assert_allclose(
        [float(rate(step)) for step in (0, 10, 55, 100)], [0.05, 0.5, 0.25, 0.0], atol=1e-6
    )


def test_the_rate_rises_again_after_an_allocation_that_changed_widths():
    """Ten epochs of ten steps: widths change before epochs 2 and 4, and not before 6."""
    model = quantize_model(small_model(), (2, 4))
    optimizer = sgd(learning_rate=0.5, steps=100, schedule="step", restart=0.8)
    rate, callback = optimizer._learning_rate, RestartRate(optimizer._learning_rate, steps=10)
    callback.set_model(model)
    told = {}
    for epoch in range(10):
        if epoch in (2, 4, 6):
            record = {
                "epoch": epoch,
                "status": "optimal",
                "budget": {},
                "bits": 2 if epoch == 2 else 4,
                "sensitivity": None,
                "enbg": None,
            }
            for state in model_kernels(model):
                state.quantizer.history = (*state.quantizer.history, record)
        callback.on_epoch_begin(epoch)
        told[epoch] = float(rate(10 * epoch))
    # A cosine of 0.4 from step 40 to 100, where it is above the step schedule.
    again = {epoch: 0.2 * (1 + np.cos(np.pi * (10 * epoch - 40) / 60)) for epoch in range(5, 10)}
    assert told == pytest.approx({0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5, **again}, rel=1e-5)
    loaded = keras.optimizers.SGD.from_config(optimizer.get_config())._learning_rate
    assert float(loaded(70)) == pytest.approx(again[7], rel=1e-5)


def test_label_smoothing_spreads_its_share():
    told = ClassificationLoss(label_smoothing=0.3)(np.array([0, 2]), LOGITS)
    target = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    np.testing.assert_allclose(
        float(told), -(target * np.log(softmax(LOGITS))).sum(-1).mean(), rtol=1e-5
    )


def test_distillation_is_hintons():
    taught = np.array([[1.0, 1.0, 0.0], [0.0, 3.0, 0.0]], np.float32)
    target = np.concatenate([[[0.0], [2.0]], taught], axis=1)
    told = ClassificationLoss(distillation=0.4, temperature=2.0)(target, LOGITS)
    teacher, student = softmax(taught / 2), softmax(LOGITS / 2)
    apart = (teacher * np.log(teacher / student)).sum(-1).mean()
    labels = -np.log(softmax(LOGITS)[[0, 1], [0, 2]]).mean()
    np.testing.assert_allclose(float(told), 0.6 * labels + 0.4 * 4 * apart, rtol=1e-5)
    np.testing.assert_array_equal(accuracy(target, LOGITS), [1, 0])


def test_a_teacher_answers_for_the_very_images():
    inputs = keras.Input((2,))
    teacher = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    images = np.arange(8, dtype=np.float32).reshape(4, 2)
    ((seen, target),) = with_teacher(tf.data.Dataset.from_tensors((images, np.arange(4))), teacher)
    np.testing.assert_array_equal(seen, images)
    np.testing.assert_array_equal(target[:, 0], np.arange(4))
    np.testing.assert_allclose(target[:, 1:], teacher(images), rtol=1e-5)


def test_losses_refuse_what_is_no_share():
    for arguments in ({"label_smoothing": 1.5}, {"distillation": -1}, {"temperature": 0}):
        with pytest.raises(ValueError, match="Received"):
            ClassificationLoss(**arguments)
    again = ClassificationLoss.from_config(ClassificationLoss(0.1, 0.5, 3.0).get_config())
    assert (again.label_smoothing, again.distillation, again.temperature) == (0.1, 0.5, 3.0)
