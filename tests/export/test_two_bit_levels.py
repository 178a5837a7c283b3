"""Symmetric levels of 2 bits, -3, -1, 1 and 3 half steps, in every kind of file."""

import keras
import numpy as np
import pytest

import bmpq_tf
from bmpq_tf.allocation.budget import Budget
from bmpq_tf.allocation.kernel import stored_bytes
from bmpq_tf.export.tflite.inspection import used_bits
from bmpq_tf.model.kernels import model_kernels
from bmpq_tf.training import device_budget

IMAGES = np.random.default_rng(0).standard_normal((16, 8, 8, 8)).astype("float32")
LEVELS = {-3, -1, 1, 3}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 8))
    x = keras.layers.Conv2D(64, 3, use_bias=False, name="conv")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    config = bmpq_tf.QuantizationConfig((2, 4), activation_bits=8, two_bit_levels="symmetric")
    made = bmpq_tf.quantize_model(
        keras.Model(inputs, keras.layers.Dense(10, name="head")(x)), config=config, pin=None
    )
    # Some factors that folding multiplies in are negative.
    signs = np.where(np.arange(64) % 3, 1.0, -1.0)
    norm = next(one for one in made.layers if isinstance(one, keras.layers.BatchNormalization))
    norm.gamma.assign(signs)
    made.compile("sgd", "mse", jit_compile=False)
    made.fit(IMAGES, np.zeros((16, 10)), epochs=1, verbose=0)
    bmpq_tf.assign_bits(made, {state.kernel.path: 2 for state in model_kernels(made)})
    made.fit(IMAGES, np.zeros((16, 10)), epochs=1, verbose=0)
    return made


def test_kernels_hold_the_levels_and_answer_by_them(model):
    for state in model_kernels(model):
        integers = state.quantizer.integers(state.variable.value).numpy()
        assert set(integers.ravel()) <= LEVELS
        np.testing.assert_allclose(
            integers * state.quantizer.scale(state.variable.value),
            state.quantizer(state.variable.value),
            rtol=1e-6,
        )


@pytest.mark.parametrize(
    ("kind", "stored"),
    [("size", 4), ("latency", None), ("integer", 8)],
)
def test_files_of_litert_hold_them_in_wider_types(model, tmp_path, kind, stored):
    path = tmp_path / f"{kind}.tflite"
    report = bmpq_tf.export_tflite(
        model, path, optimize_for=kind, calibrate_with=IMAGES if kind == "integer" else None
    )
    for layer in report.layers:
        assert layer.bits == 2
        assert stored is None or layer.stored_bits == stored
        assert layer.note
    assert [one.bits for one in bmpq_tf.inspect_tflite(path).weights] == [2, 2, 2]
    if kind == "size":
        assert all("levels -3, -1, 1, 3" in layer.note for layer in report.layers)


def test_files_for_microcontrollers_hold_them_in_2_bits_as_the_plan_says(model, tmp_path):
    pytest.importorskip("tflite_micro")
    plan = device_budget.plan_for(model, Budget(flash=1e6))
    path = tmp_path / "micro.tflite"
    bmpq_tf.export_tflite(model, path, optimize_for="micro", calibrate_with=IMAGES)
    widest = max(bmpq_tf.inspect_tflite(path).weights, key=lambda one: np.prod(one.shape))
    assert (widest.stored, widest.bits) == ("table of 2 bits", 2)
    predicted = plan.flash_bytes({state.kernel.path: 2 for state in model_kernels(model)})
    assert path.stat().st_size <= predicted
    assert path.stat().st_size > 0.95 * predicted


def test_budgets_of_stored_bytes_count_what_the_file_holds(model):
    kernels = [state.kernel for state in model_kernels(model)]
    assert [stored_bytes(kernel, 2) for kernel in kernels] == [
        stored_bytes(kernel, 4) for kernel in kernels
    ]


def test_a_saved_model_keeps_its_levels(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0)
    )


def test_a_layer_of_before_has_twos_complement():
    config = bmpq_tf.layers.QuantizerConfig((2, 4)).to_dict()
    del config["two_bit_levels"]
    old = bmpq_tf.layers.QuantizerConfig.of({**config, "version": 7})
    assert old.two_bit_levels == "twos_complement"


@pytest.mark.parametrize(
    ("integers", "bits"),
    [([-3, 3], 2), ([1, 3], 2), ([-1, 1], 2), ([-1, -1], 1), ([-3, 2], 3), ([-2, 1], 2), ([0], 1)],
)
def test_the_width_that_integers_use(integers, bits):
    assert used_bits(np.array(integers)) == bits
