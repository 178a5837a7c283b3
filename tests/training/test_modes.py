"""Every way of training measures the same sensitivities, and ends in the same widths, as plain
float32 `fit`.
"""

import functools
import importlib.util
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from conftest import compiled, small_data, small_model

from bmpq_tf import BMPQCallback, InfeasibleBudgetError, kernel_table, quantize_model
from bmpq_tf.model.kernels import model_kernels

pytestmark = pytest.mark.apart

IMAGES, LABELS = small_data()
BATCH, EPOCHS = 8, 3
# One rounding of a 16-bit gradient: 2^-8 in bfloat16, 2^-11 in float16; they add up over the
# layers.
SIXTEEN_BIT = 5e-2
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def batches() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(BATCH)


class OwnStep(keras.Model):
    """A `train_step` as Keras's guide writes it."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
            scaled = self.optimizer.scale_loss(loss)
        self.optimizer.apply(
            tape.gradient(scaled, self.trainable_variables), self.trainable_variables
        )
        return {"loss": loss}


def still(kind=keras.optimizers.SGD, **arguments) -> keras.optimizers.Optimizer:
    """An optimizer of learning rate 0, so that every step meets the same weights."""
    return kind(0.0, **arguments)


def allocations(model: keras.Model, train) -> list[dict]:
    """What the callback decided in a training of three epochs.

    Widths, sensitivities and ENBG by kernel, twice.
    """
    callback = BMPQCallback("10x", verbose=0)
    train(model, callback)
    assert [decision["epoch"] for decision in callback.history] == [1, 2]
    return callback.history


def by_fit(model, callback, **arguments):
    model.fit(
        IMAGES,
        LABELS,
        batch_size=BATCH,
        shuffle=False,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[callback],
        **arguments,
    )


def by_own_loop(model, callback):
    """Keras's own `CallbackList` drives the allocation; as in examples/own_loop.py."""
    callbacks = keras.callbacks.CallbackList(
        [callback], model=model, epochs=EPOCHS, steps=len(IMAGES) // BATCH
    )

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = model.optimizer.scale_loss(LOSS(y, model(x, training=True)))
        model.optimizer.apply(
            tape.gradient(loss, model.trainable_variables), model.trainable_variables
        )

    callbacks.on_train_begin()
    for epoch in range(EPOCHS):
        callbacks.on_epoch_begin(epoch)
        for x, y in batches():
            step(x, y)
        callbacks.on_epoch_end(epoch, {})
    callbacks.on_train_end()


def quantized(policy="float32", kind=None, candidates=(2, 4)) -> keras.Model:
    keras.utils.set_random_seed(11)
    keras.config.set_dtype_policy(policy)
    try:
        model = small_model()
        model = kind(model.inputs, model.outputs) if kind else model
        return quantize_model(model, candidates, pin="ends")
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module")
def plain() -> list[dict]:
    return allocations(compiled(quantized(), optimizer=still()), by_fit)


def assert_alike(decisions: list[dict], expected: list[dict], rtol: float) -> None:
    for decision, other in zip(decisions, expected, strict=True):
        assert decision["bits"] == other["bits"]
        for key in ("sensitivity", "enbg"):
            assert decision[key] == pytest.approx(other[key], rel=rtol), key


MODES = {
    "gradient_accumulation": ({"optimizer": {"gradient_accumulation_steps": 2}}, 1e-5),
    "clipnorm": ({"optimizer": {"clipnorm": 1e-4}}, 1e-5),
    "loss_scale_factor": ({"optimizer": {"loss_scale_factor": 64.0}}, 1e-5),
    "jit_compile": ({"compile": {"jit_compile": True}}, 1e-4),
    "run_eagerly": ({"compile": {"run_eagerly": True}}, 1e-5),
    "steps_per_execution": ({"compile": {"steps_per_execution": 2}}, 1e-5),
    "mixed_float16": ({"policy": "mixed_float16"}, SIXTEEN_BIT),
    "mixed_float16_jit_compile": (
        {"policy": "mixed_float16", "compile": {"jit_compile": True}},
        SIXTEEN_BIT,
    ),
    "mixed_bfloat16": ({"policy": "mixed_bfloat16"}, SIXTEEN_BIT),
    "own_train_step": ({"kind": OwnStep}, 1e-5),
    "own_train_step_mixed_float16": ({"kind": OwnStep, "policy": "mixed_float16"}, SIXTEEN_BIT),
    "own_loop": ({"train": by_own_loop}, 1e-5),
    "own_loop_mixed_float16": ({"train": by_own_loop, "policy": "mixed_float16"}, SIXTEEN_BIT),
}


SLOW = (
    "gradient_accumulation",
    "jit_compile",
    "own_loop_mixed_float16",
    "run_eagerly",
    "steps_per_execution",
    "mixed_float16_jit_compile",
    "own_train_step_mixed_float16",
)


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.slow) if mode in SLOW else mode for mode in MODES]
)
def test_a_mode_of_training_measures_and_decides_as_plain_fit(mode, plain):
    how, rtol = MODES[mode]
    model = quantized(how.get("policy", "float32"), how.get("kind"))
    compiled(model, optimizer=still(**how.get("optimizer", {})), **how.get("compile", {}))
    assert isinstance(model, how.get("kind", keras.Model))
    assert_alike(allocations(model, how.get("train", by_fit)), plain, rtol)


@pytest.mark.slow
def test_steps_whose_float16_gradients_overflow_add_nothing():
    def decided(policy, optimizer):
        callback = BMPQCallback("10x", warmup_epochs=11, settle_epochs=1, verbose=0)
        model = compiled(quantized(policy), optimizer=optimizer)
        model.fit(
            IMAGES, LABELS, batch_size=len(IMAGES), epochs=12, verbose=0, callbacks=[callback]
        )
        return callback.history

    dynamic = keras.optimizers.LossScaleOptimizer(still(), initial_scale=2.0**24)
    assert_alike(decided("mixed_float16", dynamic), decided("float32", still()), SIXTEEN_BIT)
    assert float(dynamic.dynamic_scale) < 2.0**24


def test_a_step_that_was_traced_before_the_callback_knew_the_loss_scale_is_traced_anew(plain):
    model = compiled(quantized("mixed_float16"), optimizer=still())
    # Of the same batch size: another one would be traced anew in any case.
    model.fit(IMAGES, LABELS, batch_size=BATCH, verbose=0)
    assert_alike(allocations(model, by_fit), plain, SIXTEEN_BIT)


def test_the_callback_asks_for_the_optimizer_of_an_own_loop():
    with pytest.raises(ValueError, match=r"has no optimizer.*model.compile\(optimizer\)"):
        by_own_loop(quantized(), BMPQCallback("10x"))


def test_averaged_weights_keep_the_widths_and_forget_the_scales_of_earlier_ones():
    momentum, gains = 0.9, []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            gains.append(hidden.log_gain.numpy())

    model = quantized()
    hidden = model.get_layer("hidden").kernel_quantizer
    compiled(model, optimizer=keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=momentum))
    callback = BMPQCallback("10x", settle_epochs=2, verbose=0)
    model.fit(IMAGES, LABELS, batch_size=BATCH, epochs=3, verbose=0, callbacks=[callback, Watch()])
    assert callback.history[0]["bits"]["hidden/kernel"] == 2
    assert {state.kernel.path: state.bits for state in model_kernels(model)} == callback.history[
        -1
    ]["bits"]
    average = np.zeros_like(gains[0])
    for gain in gains[len(IMAGES) // BATCH :]:
        average = momentum * average + (1 - momentum) * gain
    np.testing.assert_allclose(hidden.log_gain.numpy(), average, rtol=1e-4, atol=1e-7)
    assert not np.allclose(average, gains[-1], rtol=1e-2)


def test_averages_of_ones_own_keep_equal_widths():
    model, slow = quantized(candidates=(3, 6)), quantized(candidates=(3, 6))
    slow.set_weights(model.get_weights())
    for _ in range(50):
        for average, weight in zip(slow.weights, model.weights, strict=True):
            average.assign(0.9 * average + (1 - 0.9) * weight)
    bits = slow.get_layer("hidden").kernel_quantizer.bits
    assert float(bits.numpy()) < 6.0
    assert [row.bits for row in kernel_table(slow)] == [row.bits for row in kernel_table(model)]
    np.testing.assert_allclose(slow(IMAGES[:4]), model(IMAGES[:4]), rtol=1e-3, atol=1e-3)


def test_a_frozen_layer_changes_nothing_for_the_others_and_takes_part_when_thawed(plain):
    model = quantized()
    frozen = model.get_layer("depthwise")
    frozen.trainable = False
    compiled(model, optimizer=keras.optimizers.SGD(0.0, weight_decay=0.1))
    before = [
        frozen._kernel.numpy(),
        frozen.kernel_quantizer.log_gain.numpy(),
        frozen.kernel_quantizer.width,
    ]
    first = allocations(model, by_fit)[0]
    assert frozen.kernel_quantizer.uses_seen == 0
    for path in ("stem/kernel", "hidden/kernel", "head/kernel"):
        assert first["sensitivity"][path] == pytest.approx(plain[0]["sensitivity"][path], rel=1e-5)
    for value, now in zip(
        before,
        [frozen._kernel, frozen.kernel_quantizer.log_gain, frozen.kernel_quantizer.width],
        strict=True,
    ):
        np.testing.assert_array_equal(now, value)
    # 12x needs 2 bits of it, and it has 4.
    with pytest.raises(InfeasibleBudgetError):
        by_fit(model, BMPQCallback("12x"))
    frozen.trainable = True
    compiled(model, optimizer=still())
    by_fit(model, BMPQCallback("12x", verbose=0))
    assert frozen.kernel_quantizer.width == 2


@pytest.mark.slow
def test_epochs_that_a_thawed_layer_was_frozen_in_do_not_make_the_others_more_sensitive(plain):
    model = quantized()
    model.get_layer("depthwise").trainable = False
    compiled(model, optimizer=still()).fit(
        IMAGES, LABELS, batch_size=8, epochs=3, shuffle=False, verbose=0
    )
    model.get_layer("depthwise").trainable = True
    told = allocations(compiled(model, optimizer=still()), by_fit)[0]["sensitivity"]
    assert told == pytest.approx(plain[0]["sensitivity"], rel=1e-4)


def test_a_layer_that_was_frozen_before_quantization_stays_so():
    model = small_model()
    model.get_layer("hidden").trainable = False
    twin = quantize_model(model).get_layer("hidden")
    assert not twin.trainable_variables
    assert not twin.kernel_quantizer.log_gain.trainable


@pytest.mark.slow
def test_the_example_of_an_own_loop_ends_within_its_budget(capsys, monkeypatch):
    pytest.importorskip("sklearn")
    # A registry of its own, since tools define flags of the same names.
    monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())
    for define in ("DEFINE_string", "DEFINE_integer"):
        monkeypatch.setattr(
            flags, define, functools.partial(getattr(flags, define), flag_values=flags.FLAGS)
        )
    path = pathlib.Path(__file__).parents[2] / "examples" / "own_loop.py"
    spec = importlib.util.spec_from_file_location("own_loop", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    flags.FLAGS(["own_loop", "--budget=10x", "--epochs=3"])
    example.main([])
    told = re.findall(r"^epoch (\d): loss [\d.]+, ([\d.]+)x", capsys.readouterr().out, re.MULTILINE)
    assert [epoch for epoch, _ in told] == ["1", "2", "3"]
    assert float(told[0][1]) < 10 <= float(told[2][1])
