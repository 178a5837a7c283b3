"""A model that its own weights teach before they are rounded."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled, small_data, small_model

from bmpq_tf import BackupAndRestore, BMPQCallback, SelfDistiller, export_tflite, quantize_model
from bmpq_tf.model.kernels import allocation_history, model_kernels

RATE, SHARE = 0.1, 0.25
INPUTS = np.random.default_rng(0).normal(3.0, 2.0, (16, 4)).astype("float32")
LABELS = np.arange(16) % 3


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Dense(5)(inputs))
    model = quantize_model(keras.Model(inputs, keras.layers.Dense(3)(hidden)), (2, 4), pin=None)
    for state in model_kernels(model):
        state.quantizer.set_width(2, state.variable)
    model(INPUTS[:1])
    return model


def stepped(model: keras.Model) -> keras.Model:
    trainer = SelfDistiller(model, distillation_weight=SHARE)
    compiled(trainer, optimizer=keras.optimizers.SGD(RATE), metrics=["accuracy"])
    told = trainer.fit(INPUTS, LABELS, epochs=1, batch_size=16, shuffle=False, verbose=0).history
    assert set(told) == {"accuracy", "loss"}
    assert np.isfinite(told["loss"]).all()
    return model


def test_a_step_follows_both_losses_and_keeps_the_rounded_networks_statistics():
    model, twin = network(), network()
    _, dense, norm, last = twin.layers
    first_kernel, last_kernel = (state.variable for state in model_kernels(twin))
    with tf.GradientTape() as tape:
        hidden = INPUTS @ tf.convert_to_tensor(first_kernel) + dense.bias
        mean, variance = tf.nn.moments(hidden, 0)
        hidden = tf.nn.batch_normalization(
            hidden, mean, variance, norm.beta, norm.gamma, norm.epsilon
        )
        teacher = hidden @ tf.convert_to_tensor(last_kernel) + last.bias
        answers = twin(INPUTS, training=True)
        one_hot = tf.one_hot(LABELS, 3)
        apart = keras.losses.kl_divergence(
            tf.stop_gradient(tf.nn.softmax(teacher / 4.0)), tf.nn.softmax(answers / 4.0)
        )
        rounded, unrounded = (
            tf.nn.softmax_cross_entropy_with_logits(one_hot, logits)
            for logits in (answers, teacher)
        )
        loss = tf.reduce_mean((1 - SHARE) * rounded + SHARE * 16.0 * apart + unrounded)
    gradients = tape.gradient(loss, twin.trainable_variables)
    expected = [
        variable - RATE * gradient
        for variable, gradient in zip(twin.trainable_variables, gradients, strict=True)
    ]
    stepped(model)
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-5, err_msg=variable.path)
    # The twin went forward once, with its rounded kernels.
    _, _, of_model, _ = model.layers
    np.testing.assert_allclose(of_model.moving_mean, norm.moving_mean, rtol=1e-5)
    np.testing.assert_allclose(of_model.moving_variance, norm.moving_variance, rtol=1e-5)
    # Sensitivities are of that pass alone.
    assert {state.quantized.accumulated().uses_seen for state in model_kernels(model)} == {1}


def test_it_is_trained_under_a_budget_judged_rounded_and_resumed(tmp_path):
    images, labels = small_data(32)

    def run(model, epochs, *callbacks):
        trainer = compiled(SelfDistiller(model), metrics=["accuracy"])
        callbacks = [BMPQCallback("8x", settle_epochs=1, verbose=0), *callbacks]
        trainer.fit(
            images, labels, epochs=epochs, shuffle=False, batch_size=16, verbose=0,
            callbacks=callbacks,
        )  # fmt: skip
        return trainer

    def model():
        keras.utils.set_random_seed(3)
        return quantize_model(small_model(), (2, 4, 8), pin=None)

    whole = run(model(), 4)
    assert {state.bits for state in model_kernels(whole.student)} != {8}
    compiled(whole.student, metrics=["accuracy"])
    assert (
        whole.evaluate(images, labels, verbose=0)[1]
        == whole.student.evaluate(images, labels, verbose=0)[1]
    )
    backup = BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)

    class Killed(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model(), 4, backup, Killed())
    resumed = run(model(), 4, backup)
    assert allocation_history(resumed.student) == allocation_history(whole.student)
    for weight, expected in zip(
        resumed.student.get_weights(), whole.student.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(weight, expected)


def test_several_outputs_are_taught_by_a_loss_for_them_and_logged_as_they_are():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(5)(inputs)
    outputs = {name: keras.layers.Dense(3, name=name)(hidden) for name in ("one", "two")}
    model = quantize_model(keras.Model(inputs, outputs), (2, 4), pin=None)
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    labels = {"one": LABELS, "two": LABELS}
    silent = SelfDistiller(model)
    compiled(silent, loss={"one": sparse, "two": sparse})
    with pytest.raises(ValueError, match=r"for one output of logits .*\(16, 3\)") as refused:
        silent.fit(INPUTS, labels, batch_size=16, verbose=0)
    mean = {"one": "mse", "two": "mse"}
    assert f"LogitsDistillation(loss={mean})" in str(refused.value)
    trainer = SelfDistiller(model, keras.distillation.LogitsDistillation(loss=mean))
    compiled(trainer, loss={"one": sparse, "two": sparse}, optimizer=keras.optimizers.SGD(0.0))
    told = trainer.fit(INPUTS, labels, batch_size=16, verbose=0).history
    # That of the rounded network.
    rounded = sparse(LABELS, model(INPUTS, training=True)["one"])
    np.testing.assert_allclose(told["one_loss"][0], rounded, rtol=1e-5)


def test_one_output_may_have_a_name():
    losses = []
    for name in (None, "one"):
        plain = network()
        outputs = plain.output if name is None else {name: plain.output}
        model = keras.Model(plain.input, outputs)
        trainer = compiled(SelfDistiller(model), optimizer=keras.optimizers.SGD(RATE))
        labels = LABELS if name is None else {name: LABELS}
        losses.append(trainer.fit(INPUTS, labels, batch_size=16, verbose=0).history["loss"])
    assert losses[0] == losses[1]


def test_an_export_of_the_trainer_names_the_model_to_export(tmp_path):
    trainer = SelfDistiller(network())
    with pytest.raises(ValueError, match=r"\(SelfDistiller\) trains model 'functional.*student"):
        export_tflite(trainer, tmp_path / "m.tflite")


def test_what_it_cannot_teach_is_refused():
    inputs = keras.Input((4,))
    soft = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(inputs))
    with pytest.raises(ValueError, match="has no quantized layers"):
        SelfDistiller(soft)
    quantized = quantize_model(soft, pin=None)
    with pytest.raises(ValueError, match=r"ends in a softmax.*Received: distillation_loss=None"):
        SelfDistiller(quantized)
    SelfDistiller(quantized, keras.distillation.LogitsDistillation(loss="mse"))
    several = keras.Model(inputs, keras.layers.Dense(3, activation="sigmoid")(inputs))
    with pytest.raises(ValueError, match="ends in a sigmoid"):
        SelfDistiller(quantize_model(several, pin=None))
    features = keras.distillation.FeatureDistillation(
        loss="mse", teacher_layer_name="dense", student_layer_name="dense"
    )
    for loss in ("mse", [keras.distillation.LogitsDistillation()], features):
        with pytest.raises(ValueError, match=r"of final outputs.*Received: distillation_loss="):
            SelfDistiller(network(), loss)
    with pytest.raises(ValueError, match=r"Received: distillation_weight=2"):
        SelfDistiller(network(), distillation_weight=2)
    steps = keras.Input((3, 4), batch_size=2)
    stateful = keras.layers.Dense(3)(keras.layers.LSTM(4, stateful=True, name="rnn")(steps))
    with pytest.raises(ValueError, match=r"'rnn' keeps its state .*Received: stateful=True"):
        SelfDistiller(quantize_model(keras.Model(steps, stateful), pin=None))
    one = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    trainer = compiled(SelfDistiller(quantize_model(one, pin=None)), loss="mse")
    with pytest.raises(ValueError, match=r"logits of several classes.*\(16, 1\)"):
        trainer.fit(INPUTS, LABELS, batch_size=16, verbose=0)
    with pytest.raises(NotImplementedError, match="save_weights_only=True"):
        trainer.get_config()
