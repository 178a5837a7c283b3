"""Allocating by hand: costs in, widths out, and a model that takes them."""

import warnings

import keras
import numpy as np
import pytest
from conftest import compiled, small_data, small_model
from hypothesis import given
from hypothesis import strategies as st

import bmpq_tf
from bmpq_tf import (
    BMPQCallback,
    InfeasibleBudgetError,
    QuantizationConfig,
    allocate_bits,
    assign_bits,
    kernel_table,
    quantize_model,
)
from bmpq_tf.allocation.sensitivity import estimate_costs
from bmpq_tf.model.kernels import model_kernels, total_bits

IMAGES, LABELS = small_data()
OPEN = ("depthwise/kernel", "hidden/kernel")


@pytest.fixture(scope="module")
def model():
    return quantize_model(small_model(), (2, 4, 8), pin="ends")


@given(st.lists(st.floats(0, 10), min_size=2, max_size=2), st.floats(4.2, 12))
def test_widths_are_the_cheapest_that_the_budget_allows(model, weights, compression):
    costs = {
        path: [4 * weight, 2 * weight, 0.0] for path, weight in zip(OPEN, weights, strict=True)
    }
    sizes = {row.path: row.weights for row in kernel_table(model)}
    bound = 32 * sum(sizes.values()) / compression
    pinned = 8 * sum(size for path, size in sizes.items() if path not in OPEN)
    allowed = [
        (costs[OPEN[0]][a] + costs[OPEN[1]][b])
        for a, first in enumerate((2, 4, 8))
        for b, second in enumerate((2, 4, 8))
        if pinned + first * sizes[OPEN[0]] + second * sizes[OPEN[1]] <= bound
    ]
    try:
        found = allocate_bits(model, compression, costs)
    except InfeasibleBudgetError:
        assert not allowed
        return
    assert found.objective == pytest.approx(min(allowed), abs=1e-6)
    assert sum(found.bits[path] * size for path, size in sizes.items()) <= bound


def test_nothing_changes_until_the_widths_are_assigned(model):
    before = [row.bits for row in kernel_table(model)]
    found = allocate_bits(model, "10x", {"hidden/kernel": (3.0, 2.0, 1.0)})
    assert [row.bits for row in kernel_table(model)] == before
    copy = compiled(quantize_model(small_model(), (2, 4, 8), pin="ends"))
    changed = assign_bits(copy, found.bits)
    assert sorted(changed) == sorted(path for path in OPEN if found.bits[path] != 8)
    assert {row.path: row.bits for row in kernel_table(copy)} == found.bits
    assert assign_bits(copy, found.bits) == []


def test_what_training_accumulated_decides_as_the_callback_does():
    model = compiled(quantize_model(small_model(), (2, 4, 8), pin="ends"))
    model.fit(IMAGES, LABELS, verbose=0)
    by_hand = allocate_bits(model, "9x")
    callback = BMPQCallback("9x", verbose=0)
    model.fit(IMAGES, LABELS, initial_epoch=1, epochs=2, verbose=0, callbacks=[callback])
    assert callback.history[0]["bits"] == by_hand.bits


def test_a_shared_layer_decides_by_hand_as_under_the_callback():
    def model():
        keras.utils.set_random_seed(3)
        inputs, shared = keras.Input((6,)), keras.layers.Dense(6, "tanh", name="shared")
        outputs = keras.layers.Dense(3, name="last")(shared(shared(shared(inputs))))
        model = quantize_model(keras.Model(inputs, outputs), (2, 4), pin=None)
        return compiled(model, optimizer=keras.optimizers.SGD(0.0))

    recorded = []

    def costs(measured):
        recorded.append({one.path: one.gradient_abs.mean() for one in measured})
        return {one.path: estimate_costs(one, one.candidates) for one in measured}

    data = np.random.default_rng(0).standard_normal((32, 6)).astype("float32"), LABELS % 3
    under_callback = model()
    callback = BMPQCallback("9x", sensitivity=costs, verbose=0)
    under_callback.fit(
        *data, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[callback]
    )
    by_hand = model()
    by_hand.fit(*data, batch_size=8, shuffle=False, verbose=0)
    assert allocate_bits(by_hand, "9x", costs).bits == callback.history[0]["bits"]
    assert recorded[1] == pytest.approx(recorded[0])


def test_epochs_that_a_kernel_was_frozen_in_do_not_make_others_more_sensitive_by_hand():
    recorded = []

    def costs(measured):
        recorded.append({one.path: one.gradient_abs.mean() for one in measured})
        return {one.path: estimate_costs(one, one.candidates) for one in measured}

    for frozen_for in (0, 4):
        keras.utils.set_random_seed(7)
        model = quantize_model(small_model(), (2, 4, 8), pin="ends")
        for is_open, epochs in ((False, frozen_for), (True, 1)):
            model.get_layer("depthwise").trainable = is_open
            # Steps of 0, so that all gradients are alike.
            compiled(model, optimizer=keras.optimizers.SGD(0.0)).fit(
                IMAGES, LABELS, epochs=epochs, shuffle=False, batch_size=8, verbose=0
            )
        allocate_bits(model, "9x", costs)
    assert recorded[1] == pytest.approx(recorded[0], rel=1e-4)


def test_a_kernel_that_no_gradient_reached_keeps_its_width_by_hand_too():
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(6, name="hidden")(inputs)
    heads = [keras.layers.Dense(3, name=name)(hidden) for name in ("judged", "not_judged")]
    model = quantize_model(keras.Model(inputs, heads), (2, 4), pin=None)
    with pytest.raises(ValueError, match=r"No gradients were seen, so no kernel can be judged"):
        allocate_bits(model, "9x")
    untracked = quantize_model(small_model(), config=QuantizationConfig(track_sensitivity=False))
    with pytest.raises(ValueError, match=r"do not track sensitivities"):
        allocate_bits(untracked, "6x")
    assert allocate_bits(model, "9x", {}).status == "optimal"
    model.compile("sgd", loss=["mse", None], jit_compile=False)
    data = np.random.default_rng(0).standard_normal((32, 9)).astype("float32")
    with warnings.catch_warnings():
        # TensorFlow's, of what no loss needs.
        warnings.simplefilter("ignore")
        model.fit(data[:, :6], [data[:, 6:], data[:, 6:]], verbose=0)
    assert allocate_bits(model, "9x").bits["not_judged/kernel"] == 4


def test_a_sensitivity_of_ones_own_gets_measurements_and_decides():
    asked = []

    def favours_hidden(measured):
        asked.extend(measured)
        return {
            one.path: [float(one.path == "hidden/kernel") * (8 - bits) for bits in one.candidates]
            for one in measured
        }

    model = compiled(quantize_model(small_model(), (2, 4, 8), pin="ends"))
    model.fit(
        IMAGES,
        LABELS,
        epochs=2,
        verbose=0,
        callbacks=[BMPQCallback("5.6x", sensitivity=favours_hidden, verbose=0)],
    )
    assert {one.path for one in asked} == set(OPEN)
    assert all(one.candidates == (2, 4, 8) and one.gradient_abs.max() > 0 for one in asked)
    widths = {row.path: row.bits for row in kernel_table(model)}
    assert widths["hidden/kernel"] > widths["depthwise/kernel"]


def test_bad_input_is_named(model):
    with pytest.raises(InfeasibleBudgetError, match="Received: budget='40x'"):
        allocate_bits(model, "40x", {})
    with pytest.raises(
        ValueError, match=r"Received: costs=\[1.0\] for kernel 'hidden/kernel' .* \(2, 4, 8\)"
    ):
        allocate_bits(model, "10x", {"hidden/kernel": (1.0,)})
    with pytest.raises(ValueError, match=r"no such kernels to decide. Received: \['nope'\]"):
        assign_bits(model, {"nope": 4})
    with pytest.raises(ValueError, match=r"no such kernels to decide. Received: \['nope'\]"):
        assign_bits(model, {"nope": 32})
    with pytest.raises(
        ValueError, match=r"cannot be 3 bits wide. Received: width=3, candidates \(2, 4, 8\)"
    ):
        assign_bits(model, {"depthwise/kernel": 2, "hidden/kernel": 3})
    assert {row.bits for row in kernel_table(model)} == {8}
    for options, words in (
        ({"min_improvement": 5}, r"min_improvement is a share, .*Received: min_improvement=5"),
        ({"time_limit": -1}, r"time_limit is a number of seconds. Received: time_limit=-1"),
    ):
        with pytest.raises(ValueError, match=words):
            allocate_bits(model, "10x", {}, **options)
    with pytest.raises(ValueError, match=r"no such kernels to decide.*\['other'\]"):
        allocate_bits(model, "10x", {"other": (3.0, 1.0, 0.0)})
    with pytest.raises(ValueError, match=r"'small' has no quantized layers"):
        allocate_bits(small_model(), "1x", {})
    with pytest.raises(ValueError, match=r"is not built, so its kernels have no size yet"):
        allocate_bits(keras.Sequential([bmpq_tf.layers.QuantDense(3)]), "1x", {})

    def mistyped(measured):
        return {}

    mistyped.objective = "Squared"
    with pytest.raises(ValueError, match=r"Received: objective='Squared'. Known: first_order,"):
        BMPQCallback("10x", sensitivity=mistyped)
    for sensitivity in ("magic", 3):
        with pytest.raises(
            ValueError,
            match=(
                r"Unknown sensitivity. Received: sensitivity=.*Known: first_order, squared, "
                r"joint, or a callable"
            ),
        ):
            BMPQCallback("10x", sensitivity=sensitivity)
    with pytest.raises(TypeError, match=r"config is a bmpq_tf\.QuantizationConfig"):
        quantize_model(small_model(), config={"scale": "learned"})


def test_what_is_said_directly_wins_over_the_config():
    config = QuantizationConfig(candidate_bits=(4,), pinned_bits=6, granularity="channel")
    rows = {
        row.path: row.candidates
        for row in kernel_table(quantize_model(small_model(), (2, 3), config=config, pin="ends"))
    }
    assert rows == {
        "stem/kernel": (6,),
        "depthwise/kernel": (2, 3),
        "hidden/kernel": (2, 3),
        "head/kernel": (6,),
    }
    state = model_kernels(quantize_model(small_model(), config=config))[1]
    assert (state.kernel.candidates, state.quantizer.config.granularity) == ((4,), "channel")


def test_the_table_adds_up(model):
    rows = kernel_table(model)
    assert sum(row.bytes for row in rows) == total_bits(model_kernels(model)) / 8
    assert [row.path for row in rows if row.pinned] == ["stem/kernel", "head/kernel"]


@pytest.mark.slow
def test_a_file_is_run_and_compared_by_path_or_content(tmp_path):
    model = compiled(quantize_model(small_model(), (2, 4, 8), pin="ends"))
    model.fit(IMAGES, LABELS, verbose=0)
    path = tmp_path / "model.tflite"
    bmpq_tf.export_tflite(model, path, verify_with=IMAGES)
    (answers,) = bmpq_tf.run_tflite(path, IMAGES)
    np.testing.assert_allclose(answers, model.predict(IMAGES, verbose=0), atol=1e-4)
    np.testing.assert_array_equal(
        bmpq_tf.run_tflite(path.read_bytes(), IMAGES, batch_size=5)[0], answers
    )
    assert bmpq_tf.compare_tflite(model, path, IMAGES).holds
    other = compiled(quantize_model(small_model(), (2, 4, 8), pin="ends"))
    assert "differ from Keras's" in bmpq_tf.compare_tflite(other, path.read_bytes(), IMAGES).problem
    with pytest.raises(ValueError, match=r"takes 1 inputs, of the shapes .* Received: 2"):
        bmpq_tf.run_tflite(path, [IMAGES, IMAGES])
    with pytest.raises(ValueError, match="Not a TFLite model"):
        bmpq_tf.compare_tflite(model, b"no model", IMAGES)


def test_costs_of_every_kernel_may_name_one_that_is_frozen():
    frozen = quantize_model(small_model(), (2, 4, 8), pin="ends")
    frozen.get_layer("depthwise").trainable = False
    costs = {row.path: [3.0, 1.0, 0.0][-len(row.candidates) :] for row in kernel_table(frozen)}
    found = allocate_bits(frozen, "6x", costs)
    assert found.bits["depthwise/kernel"] == 8
    assert found.bits["hidden/kernel"] < 8
