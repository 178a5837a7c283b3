"""Budgets of flash and RAM beside the file for a microcontroller, and the plan that they go by."""

import keras
import numpy as np
import pytest

pytest.importorskip("tflite_micro")

from micro_models import OPTIONS, network, trained

from bmpq_tf import (
    Budget,
    ExportError,
    InfeasibleBudgetError,
    SkippedLayersWarning,
    allocate_bits,
    export_tflite,
    kernel_table,
    quantize_model,
)
from bmpq_tf.export.device_plan import device_plan
from bmpq_tf.export.tflite.decode import DECODE
from bmpq_tf.training import device_budget

layers = keras.layers


@pytest.fixture(scope="module")
def model():
    return trained({"wide/kernel": 3, "depthwise/kernel": 2, "hidden/kernel": 5})


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("micro") / "model.tflite"
    return export_tflite(model, path, **OPTIONS)


@pytest.fixture(scope="module")
def plan():
    return device_plan(quantize_model(network(), (2, 3, 4, 5, 6, 8), activation_bits=8))


def test_the_plan_of_the_untrained_model_tells_flash_and_ram(plan, model, written):
    assert DECODE in written.micro.operators
    bits = {row.path: row.bits for row in kernel_table(model)}
    taken = written.micro.arena.bytes
    assert taken <= plan.arena_bytes(bits) <= 1.05 * taken
    assert written.tflite_bytes <= plan.flash_bytes(bits) <= 1.08 * written.tflite_bytes


def test_a_budget_of_the_files_own_size_holds_and_one_below_is_refused(model, written, tmp_path):
    exact = Budget(flash=written.tflite_bytes + 100, ram=written.micro.arena.bytes)
    export_tflite(model, tmp_path / "a.tflite", budget=exact, **OPTIONS)
    for less, name in (
        (Budget(flash=written.tflite_bytes - 1), "flash"),
        (Budget(ram=1024), "ram"),
    ):
        with pytest.raises(ExportError, match=f"bytes of {name}, and the budget has"):
            export_tflite(model, tmp_path / "b.tflite", budget=less, **OPTIONS)


def test_kernels_that_no_plan_unpacks_stay_as_they_are(tmp_path):
    random = keras.initializers.RandomUniform(0, 0.1, seed=0)
    inputs = keras.Input((64,))
    # It stays float in training, and its integers have 7 bits: a table would take less flash.
    layer = layers.Dense(64, kernel_constraint="non_neg", kernel_initializer=random, name="hidden")
    model = keras.Model(inputs, layers.Dense(4, name="head")(layer(inputs)))
    with pytest.warns(SkippedLayersWarning):
        model = quantize_model(model, (4, 8), pin=None)
    data = {"calibrate_with": np.random.default_rng(0).random((32, 64), "float32")}
    path = tmp_path / "model.tflite"
    report = export_tflite(model, path, optimize_for="micro", tolerance=1.0, **data)
    assert DECODE not in report.micro.operators
    bits = {row.path: row.bits for row in kernel_table(model)}
    assert report.micro.arena.bytes <= device_plan(model).arena_bytes(bits)


def test_a_budget_that_other_ends_break_names_them(model, written, tmp_path):
    exact = Budget(flash=written.tflite_bytes)
    with pytest.raises(ExportError, match="planned without io_dtype='float32', which takes more"):
        export_tflite(model, tmp_path / "a.tflite", budget=exact, io_dtype="float32", **OPTIONS)
    less = Budget(flash=written.tflite_bytes - 1)
    with pytest.raises(ExportError, match="Train it under that budget"):
        export_tflite(model, tmp_path / "a.tflite", budget=less, io_dtype="int8", **OPTIONS)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("2 kB flash", r"The smallest file of this model takes .* without any kernel"),
        ("1 kB ram", r"Without any kernel .* for activations, the most at .*CONV_2D"),
        ("10 kB flash, 7500 B ram", r"not all at once; within the others, .* bytes of flash"),
    ],
)
def test_a_budget_that_cannot_be_met_says_what_takes_it(model, plan, budget, words, monkeypatch):
    monkeypatch.setattr(device_budget, "plan_for", lambda *given: plan)
    with pytest.raises(InfeasibleBudgetError, match=words):
        allocate_bits(model, budget, {})


def test_a_kernel_that_must_be_unpacked_is_named(plan, monkeypatch):
    model = quantize_model(network(), (2, 3), activation_bits=8)
    monkeypatch.setattr(device_budget, "plan_for", lambda *given: plan)
    ram = plan.planned + plan.persistent + 832
    with pytest.raises(InfeasibleBudgetError, match=r"bytes of RAM where '.*' is unpacked"):
        allocate_bits(model, Budget(ram=ram), {})


def test_the_plan_counts_a_kernel_for_each_operator_that_reads_it(tmp_path):
    inputs = keras.Input((12, 8))
    x = layers.TimeDistributed(layers.Dense(12, activation="relu"))(inputs)
    x = layers.TimeDistributed(layers.Dense(12, activation="relu"))(x)
    outputs = layers.Dense(3)(layers.Flatten()(x))
    model = quantize_model(keras.Model(inputs, outputs), (4,), activation_bits=8, pin=None)
    data = np.random.default_rng(1).standard_normal((64, 12, 8)).astype("float32")
    model.compile("adam", "mse")
    model.fit(data, data[:, 0, :3], verbose=0)
    planned = device_plan(model).arena_bytes({row.path: 4 for row in kernel_table(model)})
    options = {"optimize_for": "micro", "calibrate_with": data}
    report = export_tflite(model, tmp_path / "model.tflite", **options)
    assert 0.98 * planned < report.micro.arena.bytes <= planned
