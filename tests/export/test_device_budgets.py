"""Random budgets of flash and RAM on whole networks: the file is within both, or there is none."""

import functools
import itertools
import os

import keras
import numpy as np
import pytest

pytest.importorskip("tflite_micro")

from conftest import small_model
from zoo import SMALL, example_batch

from bmpq_research.models import build_model
from bmpq_tf import (
    Budget,
    InfeasibleBudgetError,
    allocate_bits,
    assign_bits,
    export_tflite,
    kernel_table,
    quantize_model,
)
from bmpq_tf.export.device_plan import device_plan
from bmpq_tf.training import device_budget

pytestmark = pytest.mark.slow


def sounds():
    """Small, of many layers: what TFLM plans its memory in is more than the activations."""
    inputs = x = keras.Input((32, 6))
    for _ in range(7):
        x = keras.layers.Conv1D(16, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling1D()(x)))


def sensors():
    inputs = keras.Input((12, 6))
    x = keras.layers.GRU(12)(keras.layers.GRU(12, return_sequences=True)(inputs))
    return keras.Model(inputs, keras.layers.Dense(4)(x))


NETWORKS = {
    "sounds": sounds,
    "time_series": SMALL["time_series"],
    "unet": SMALL["unet"],
    "two_by_two": SMALL["two_by_two"],
    "digits_cnn": lambda: build_model("digits_cnn", (8, 8, 1), 10),
    "resnet20": lambda: build_model("resnet20", (16, 16, 3), 10, 0.5),
}
# 40 of each were tried once; a few are enough from then on.
PAIRS = int(os.environ.get("BMPQ_BUDGET_PAIRS", "4"))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_is_within_both_or_there_is_none(name, tmp_path, monkeypatch):
    model = quantize_model(NETWORKS[name](), (2, 3, 4, 6, 8), activation_bits=8)
    inputs, targets = example_batch(model, 4)
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(inputs, targets, verbose=0)
    plan = device_plan(model)
    monkeypatch.setattr(device_budget, "plan_for", lambda *given: plan)
    rows = [row for row in kernel_table(model) if len(row.candidates) > 1]

    @functools.cache
    def exported(bits):
        assign_bits(model, dict(bits))
        path = tmp_path / "model.tflite"
        options = {"optimize_for": "micro", "calibrate_with": inputs, "tolerance": 10.0}
        report = export_tflite(model, path, budget="1x", overwrite=True, **options)
        return report.tflite_bytes, report.micro.arena.bytes

    random = np.random.default_rng(sum(map(ord, name)))
    widest = plan.flash + sum(forms[8].flash for forms in plan.forms.values())
    unpacked = [form.planned for forms in plan.forms.values() for form in forms.values()]
    least, most = plan.planned + plan.persistent, max(unpacked) + plan.persistent + 4096
    feasible = 0
    for _ in range(PAIRS):
        budget = Budget(
            flash=random.uniform(0.3, 1.1) * widest, ram=random.uniform(0.95 * least, 1.05 * most)
        )
        costs = {row.path: np.sort(random.uniform(0, 1, len(row.candidates)))[::-1] for row in rows}
        try:
            bits = allocate_bits(model, budget, costs).bits
        except InfeasibleBudgetError:
            if len(rows) <= 4:
                assert not any(within(plan, budget, model, rows))
            continue
        feasible += 1
        flash, arena = exported(tuple(sorted(bits.items())))
        assert flash <= budget.flash, (name, budget, bits)
        assert arena <= budget.ram, (name, budget, bits)
        assert plan.arena_bytes(bits) <= 1.05 * arena
    print(f"{name}: {feasible} of {PAIRS} budgets could be met")
    assert feasible


@pytest.mark.parametrize("make", [sounds, sensors])
def test_planning_for_many_narrow_kernels_is_planned(make, tmp_path):
    model = quantize_model(make(), (4,), activation_bits=8, pin=None)
    inputs, targets = example_batch(model, 4)
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(inputs, targets, verbose=0)
    planned = device_plan(model).arena_bytes({row.path: row.bits for row in kernel_table(model)})
    options = {"optimize_for": "micro", "calibrate_with": inputs, "tolerance": 10.0}
    arena = export_tflite(model, tmp_path / "model.tflite", **options).micro.arena.bytes
    assert arena <= planned <= 1.05 * arena


def within(plan, budget, model, rows):
    """Whether each assignment of the open kernels meets a budget."""
    fixed = {row.path: row.bits for row in kernel_table(model)}
    for picked in itertools.product(*(row.candidates for row in rows)):
        bits = fixed | dict(zip((row.path for row in rows), picked, strict=True))
        yield plan.flash_bytes(bits) <= budget.flash and plan.arena_bytes(bits) <= budget.ram


def test_what_trains_in_16_bits_is_planned_as_its_file_is():
    before = keras.config.dtype_policy()
    sizes = {}
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            sizes[policy] = device_plan(quantize_model(small_model(), (2, 8))).flash
        finally:
            keras.config.set_dtype_policy(before)
    assert sizes["mixed_float16"] == sizes["float32"]
