"""The schedule, what it writes down, and what it refuses before any training."""

import dataclasses
import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled, fitted, small_data, small_model

import bmpq_tf
from bmpq_tf import (
    BMPQCallback,
    InfeasibleBudgetError,
    QuantizationConfig,
    quantize_model,
)
from bmpq_tf.allocation.sensitivity import estimate_costs
from bmpq_tf.allocation.solver import solve_allocation
from bmpq_tf.model import kernels
from bmpq_tf.model.kernels import measurement, model_kernels, read, stored_budget, total_bits

IMAGES, LABELS = small_data()


def test_the_schedule_warms_up_decides_and_settles():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append([state.bits for state in model_kernels(self.model)])

    callback = BMPQCallback("10x", warmup_epochs=2, interval_epochs=2, settle_epochs=3, verbose=0)
    model = compiled(quantize_model(small_model(), (2, 4), pin="ends"))
    history = model.fit(IMAGES, LABELS, epochs=8, verbose=0, callbacks=[callback, Watch()])
    assert [allocation["epoch"] for allocation in callback.history] == [2, 4]
    assert seen[0] == seen[1] == [8, 4, 4, 8]
    assert seen[4] == seen[5] == seen[6] == seen[7]
    assert all(allocation["status"] == "optimal" for allocation in callback.history)
    budget = bmpq_tf.Budget.parse("10x").bits([state.kernel for state in model_kernels(model)])
    assert total_bits(model_kernels(model)) <= budget
    assert history.history["bmpq_within_budget"] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert history.history["bmpq_compression"][0] == pytest.approx(
        32 / history.history["bmpq_bits"][0]
    )
    assert stored_budget(model) == bmpq_tf.Budget(compression=10)


def test_one_trace_serves_a_whole_fit_with_several_allocations():
    traces = []

    @keras.saving.register_keras_serializable("tests")
    class Counting(keras.layers.Layer):
        def call(self, inputs, training=None):
            if training:
                traces.append(1)
            return inputs

    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, name="stem")(Counting()(inputs))
    x = keras.layers.Conv2D(4, 3, name="mid")(x)
    x = keras.layers.Dense(8, name="hidden")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(x))
    model = compiled(quantize_model(model, (2, 4, 8), pin="ends"))
    callback = BMPQCallback("8x", verbose=0)
    steps = []

    class Squeeze(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            steps.append(len(traces))
            for state in model_kernels(self.model):
                if state.is_open:
                    state.quantizer.set_width((2, 4, 8)[epoch % 3], state.variable)

    model.fit(IMAGES, LABELS, epochs=5, verbose=0, callbacks=[Squeeze(), callback])
    after_first_epoch = steps[1]
    assert len(traces) == after_first_epoch
    assert len(callback.history) >= 3


@pytest.mark.slow
def test_history_and_widths_come_back_from_a_saved_model(tmp_path):
    callback = BMPQCallback("10x", verbose=0)
    model, _ = fitted(callback)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = BMPQCallback("10x", verbose=0)
    again.set_model(loaded)
    assert again.history == callback.history
    assert all(value > 0 for value in callback.history[-1]["enbg"].values())
    assert len(callback.history) == 4
    assert [state.bits for state in model_kernels(loaded)] == [
        state.bits for state in model_kernels(model)
    ]
    for ours, theirs in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.slow
def test_permuting_the_sensitivities_changes_the_allocation():
    model = compiled(quantize_model(small_model(), (2, 4, 8), pin=None))
    model.fit(IMAGES, LABELS, verbose=0)
    states = model_kernels(model)
    inventory = [state.kernel for state in states]
    # Room for 8 bits in the large kernel, or in the three small ones.
    limits = bmpq_tf.Budget.parse("7 bits").limits(inventory)
    factors = np.float32([1.0, 1e-3, 1e3, 1e-3])

    def allocation(order):
        table = []
        for state, factor in zip(states, factors[order], strict=True):
            measured = measurement(state)
            measured.gradient_abs[...] = factor
            table.append(estimate_costs(measured, state.kernel.candidates))
        return solve_allocation(inventory, table, limits).bits

    assert allocation([0, 1, 2, 3]) != allocation([2, 0, 1, 3])


@pytest.mark.slow
def test_the_present_width_does_not_colour_the_sensitivity():
    shares = {}
    for bits in (2, 4, 8):
        keras.utils.set_random_seed(3)
        model = compiled(
            quantize_model(small_model(), (2, 4, 8), pin=None), optimizer=keras.optimizers.SGD(0.0)
        )
        for state in model_kernels(model):
            state.quantizer.set_width(bits if state.layer.name == "hidden" else 4, state.variable)
        model.fit(IMAGES, LABELS, batch_size=len(IMAGES), verbose=0)
        told = {
            state.layer.name: estimate_costs(measurement(state), [2])[0]
            for state in model_kernels(model)
        }
        shares[bits] = told["hidden"] / sum(told.values())
    assert max(shares.values()) / min(shares.values()) <= 1.5


@pytest.mark.slow
def test_a_second_fit_decides_anew_on_data_of_unknown_length():
    data = tf.data.Dataset.from_generator(
        lambda: iter([(IMAGES[:8], LABELS[:8])] * 2),
        output_signature=(tf.TensorSpec((8, 6, 6, 2)), tf.TensorSpec((8,), tf.int64)),
    )
    model = compiled(quantize_model(small_model(), (2, 4), pin="ends"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")
        for budget in ("8x", "12x"):
            model.fit(
                data,
                epochs=2,
                shuffle=False,
                verbose=0,
                callbacks=[BMPQCallback(budget, verbose=0)],
            )
    assert [allocation["budget"] for allocation in kernels.allocation_history(model)] == [
        {"compression": 8.0},
        {"compression": 12.0},
    ]


@pytest.mark.slow
def test_a_fit_that_begins_in_the_middle_decides_after_its_first_epoch_or_is_refused():
    callback = BMPQCallback("10x", verbose=0)
    _, history = fitted(callback, epochs=9, initial_epoch=5)
    assert [allocation["epoch"] for allocation in callback.history] == [6]
    assert history.history["bmpq_within_budget"] == [0, 1, 1, 1]
    with pytest.raises(
        ValueError,
        match=(
            r"begins at epoch 7 of 9 and settles after epoch 6: .* Received: initial_epoch=6, "
            r"epochs=9"
        ),
    ):
        fitted(BMPQCallback("10x"), epochs=9, initial_epoch=6)
    # A model that goes on has what it saw before.
    model, _ = fitted(BMPQCallback("10x", verbose=0), epochs=6)
    fitted(BMPQCallback("10x", verbose=0), epochs=12, initial_epoch=9, model=model)
    # Gradients of an earlier fit let it decide at once, where the schedule has a decision.
    model = compiled(quantize_model(small_model(), (2, 4), pin="ends"))
    model.fit(IMAGES, LABELS, verbose=0)
    with pytest.raises(ValueError, match=r"begins at epoch 9 of 9 and settles after epoch 6"):
        fitted(BMPQCallback("10x"), epochs=9, initial_epoch=8, model=model)
    callback = BMPQCallback("10x", verbose=0)
    fitted(callback, epochs=9, initial_epoch=6, model=model)
    assert [allocation["epoch"] for allocation in callback.history] == [6]


def test_one_line_an_allocation_and_one_for_all_that_repeat_it(capsys):
    def in_turn(wanted):
        """Costs under which the kernel that is named keeps its bits, decision after decision."""
        names = iter(wanted)

        def costs(measured):
            favourite = next(names)
            return {one.path: [1.0 + 9.0 * one.path.startswith(favourite), 0.0] for one in measured}

        return costs

    order = ["hidden"] * 5 + ["depthwise"] * 3 + ["hidden"]
    callback = BMPQCallback("4.3 bits", sensitivity=in_turn(order), settle_epochs=1)
    fitted(callback, epochs=10)
    lines = capsys.readouterr().out.strip().splitlines()
    told = [(int(line.split()[2].rstrip(":")), line) for line in lines]
    assert [epoch for epoch, _ in told] == [2, 3, 7, 8, 10]
    for epoch, line in told:
        assert line.startswith(f"BMPQ epoch {epoch}: optimal in ")
        assert ("changed" in line) is (epoch in (2, 7, 10))
        assert ("the same widths; told again when that changes" in line) is (epoch in (3, 8))


@pytest.mark.parametrize(
    ("min_improvement", "status"), [(0.0, "optimal"), (0.3, "optimal"), (0.9, "kept")]
)
def test_widths_change_only_where_it_is_worth_it(min_improvement, status):
    asked = []

    def favourite(measured):
        """Finds one kernel ten times as sensitive as the other, first one way round, then the
        other.
        """
        asked.append(len(measured))
        ranked = measured if len(asked) > 1 else measured[::-1]
        changed = [
            dataclasses.replace(m, gradient_abs=np.full_like(m.gradient_abs, f))
            for m, f in zip(ranked, (10.0, 1.0), strict=True)
        ]
        return {one.path: estimate_costs(one, one.candidates) for one in changed}

    inputs = keras.Input((4,))
    x = keras.layers.Dense(8, name="first")(inputs)
    for name in ("left", "right"):
        x = keras.layers.Dense(8, name=name)(x)
    model = compiled(
        quantize_model(keras.Model(inputs, keras.layers.Dense(3, name="last")(x)), (2, 8))
    )
    callback = BMPQCallback(
        "5.4x", sensitivity=favourite, min_improvement=min_improvement, settle_epochs=1, verbose=0
    )
    model.fit(
        np.random.default_rng(0).normal(size=(16, 4)),
        np.arange(16) % 3,
        epochs=4,
        verbose=0,
        callbacks=[callback],
    )
    first, second, third = callback.history
    # The third finds what the second found: the optimum once more where widths changed.
    assert (first["status"], second["status"], third["status"]) == ("optimal", status, status)
    assert (first["bits"] == second["bits"]) is (status == "kept")
    assert {first["bits"][f"{name}/kernel"] for name in ("left", "right")} == {2, 8}


def test_csv_and_history_have_the_values(tmp_path):
    csv = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    model = compiled(quantize_model(small_model(), (2, 4), pin="ends"))
    model.fit(IMAGES, LABELS, epochs=3, verbose=0, callbacks=[BMPQCallback("10x", verbose=0), csv])
    assert "bmpq_within_budget" in (tmp_path / "log.csv").read_text().splitlines()[0]


@pytest.mark.slow
def test_accumulators_start_anew_after_a_decision():
    callback = BMPQCallback("10x", interval_epochs=1, settle_epochs=1, verbose=0)
    model, _ = fitted(callback, epochs=3)
    steps = len(IMAGES) // 8
    assert all(read(state.quantizer.uses_seen) == steps for state in model_kernels(model))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": "fast"}, "Cannot read the budget"),
        ({"budget": "10x", "warmup_epochs": 0}, r"warmup_epochs must be .*1 or more"),
        ({"budget": "10x", "min_improvement": 1}, r"min_improvement is a share.*min_improvement=1"),
        (
            {"budget": "10x", "min_improvement": "0.1"},
            r"min_improvement is a share.*min_improvement='0.1'",
        ),
        ({"budget": "10x", "sensitivity": "cubic"}, r"Unknown sensitivity.*squared"),
        (
            {"budget": "10x", "time_limit": None},
            r"time_limit is a number of seconds. Received: time_limit=None",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        BMPQCallback(**arguments)


def test_what_cannot_be_is_refused_before_training():
    before = quantize_model(small_model(), (2, 4), pin="ends")
    start = [weight.numpy() for weight in before.weights]
    with pytest.raises(
        InfeasibleBudgetError, match=r"Received: budget='40x'.*'stem/kernel'.* are pinned"
    ):
        fitted(BMPQCallback("40x"), model=compiled(before))
    with pytest.raises(
        ValueError, match=r"fit is too short.*at least 3 epochs. Received: epochs=2"
    ):
        fitted(BMPQCallback("10x", settle_epochs=2), epochs=2, model=compiled(before))
    with pytest.raises(ValueError, match="has no quantized layers"):
        fitted(BMPQCallback("10x"), model=compiled(small_model()))
    with pytest.raises(ValueError, match="do not track sensitivities"):
        fitted(
            BMPQCallback("10x"),
            model=compiled(
                quantize_model(
                    small_model(), (2, 4), config=QuantizationConfig(track_sensitivity=False)
                )
            ),
        )
    with pytest.raises(
        ValueError,
        match=r"do not track single weights: .*hidden/kernel.*track_sensitivity=\"joint\"",
    ):
        fitted(BMPQCallback("10x", sensitivity="joint"), model=compiled(before))
    with pytest.raises(ValueError, match="is not built"):
        BMPQCallback("10x").check(keras.Sequential([bmpq_tf.layers.QuantDense(3)]), epochs=9)
    for weight, value in zip(before.weights, start, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_a_fit_under_a_new_budget_that_it_cannot_decide_for_is_refused():
    model = compiled(quantize_model(small_model(), (2, 4, 8), pin=None))
    images, labels = small_data()
    fit = functools.partial(model.fit, images, labels, verbose=0)
    fit(epochs=3, callbacks=[BMPQCallback("8x", verbose=0)])
    with pytest.raises(ValueError, match="none was made before under this budget"):
        fit(epochs=9, initial_epoch=7, callbacks=[BMPQCallback("12x", verbose=0)])
    # The widths that the model has meet this one.
    fit(epochs=9, initial_epoch=7, callbacks=[BMPQCallback("6x", verbose=0)])
