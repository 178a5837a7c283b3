"""Integers of few levels lie in int8 as multiples, so that biases are rounded to finer steps."""

import pathlib

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmpq_tf import ExportError, export_tflite, inspect_tflite, quantize_model
from bmpq_tf.export.integer.biases import coarse
from bmpq_tf.export.kernels import levels
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.verification.near_ties import output_steps


@pytest.mark.quick
@given(st.integers(1, 8), st.booleans(), st.integers(0, 2**16))
def test_multiples_stay_in_int8_and_depend_on_the_width_alone(bits, odd, seed):
    low = levels.lowest_level(bits, 1 + odd)
    every = low + (1 + odd) * np.arange(2**bits)
    every = every[np.abs(every) < 128]
    some = np.random.default_rng(seed).choice(every, 40)
    both = np.concatenate([every[:1], every[-1:], some])
    factor = levels.factor_in_int8(both)
    assert factor == levels.factor_in_int8(every)
    assert np.abs(factor * both).max() <= 127
    assert factor == 1 or factor * np.abs(every).max() > 100
    if np.abs(both).max() < 8:
        inside = levels.factor_in_int4(both) * both
        assert inside.min() >= -8
        assert inside.max() <= 7


@pytest.mark.quick
@pytest.mark.parametrize(
    ("integers", "factor"),
    [
        ([-2, 1], 63),
        ([-1, 1], 127),
        ([-3, 1], 42),
        ([-2, 2], 31),
        ([-8, 7], 15),
        ([-8, 8], 7),
        ([-32, 31], 1),
    ],
)
def test_how_much_room_there_is(integers, factor):
    assert levels.factor_in_int8(np.array(integers)) == factor


@pytest.mark.parametrize("optimize_for", ["integer", "micro"])
def test_biases_are_rounded_to_fine_steps(optimize_for, tmp_path):
    if optimize_for == "micro":
        pytest.importorskip("tflite_micro")
    random = np.random.default_rng(0)
    inputs = keras.Input((8,))
    x = keras.layers.Dense(256, bias_initializer=keras.initializers.RandomNormal(seed=1))(inputs)
    model = quantize_model(keras.Model(inputs, x), (2,), pin=None, activation_bits=8)
    data = random.standard_normal((400, 8)).astype("float32")
    model(data, training=True)
    report = export_tflite(
        model, tmp_path / "m.tflite", optimize_for=optimize_for, calibrate_with=data
    )
    (weights,) = inspect_tflite(report.path).weights
    assert weights.bits == 2
    (step,) = output_steps(flatbuffer.parse(pathlib.Path(report.path).read_bytes()))
    # With biases in steps of the trained integers' scale it is 0.91.
    assert report.parity.max_abs_diff < 0.52 * step


def with_coarse_biases(bits, size=0.003, sides=(3,)):
    """A quantized model, one channel of which hardly takes a step of its input's grid, and data.

    Of several sides it has a depthwise layer and an output each.
    """
    data = np.random.default_rng(0).standard_normal((64, 8, 8, 8)).astype("float32")
    data[..., 3] *= size
    inputs = keras.Input((8, 8, 8))

    def normalised(x):
        return keras.layers.BatchNormalization(
            momentum=0.0,
            epsilon=1e-9,
            beta_initializer=keras.initializers.RandomNormal(stddev=1.0, seed=0),
        )(x)

    outputs = [normalised(keras.layers.DepthwiseConv2D(side)(inputs)) for side in sides]
    model = quantize_model(keras.Model(inputs, outputs), (bits,), pin=None, activation_bits=8)
    model(data, training=True)
    return model, data


def test_a_bias_that_stays_coarse_is_named(tmp_path):
    model, data = with_coarse_biases(8)
    options = {"optimize_for": "integer", "calibrate_with": data, "verify_with": data}
    with pytest.raises(ExportError, match=r"rounded to so many steps of the output: '.*' to"):
        export_tflite(model, tmp_path / "m.tflite", tolerance=1e-6, **options)
    export_tflite(model, tmp_path / "m.tflite", tolerance=1.0, **options)
    assert coarse(flatbuffer.parse((tmp_path / "m.tflite").read_bytes()))


def test_where_int4_has_too_coarse_biases_int8_takes_its_place(tmp_path):
    pytest.importorskip("tflite_micro")
    model, data = with_coarse_biases(4, size=0.01)

    free = exported(model, data, tmp_path)
    (kernel,) = free.layers
    assert kernel.stored_bits == 8
    assert kernel.note == "in int8, since int4 would round a bias too coarsely"
    narrow = exported(model, data, tmp_path, budget=f"{free.tflite_bytes - 1} B flash")
    assert narrow.layers[0].stored_bits == 4
    assert narrow.tflite_bytes < free.tflite_bytes
    assert narrow.parity.rms > 2 * free.parity.rms


def test_where_flash_has_no_room_for_all_the_smallest_kernels_lie_in_int8(tmp_path):
    pytest.importorskip("tflite_micro")
    model, data = with_coarse_biases(4, size=0.01, sides=(5, 3))
    free = exported(model, data, tmp_path)
    assert [kernel.stored_bits for kernel in free.layers] == [8, 8]
    less = exported(model, data, tmp_path, budget=f"{free.tflite_bytes - 1} B flash")
    assert {kernel.weights: kernel.stored_bits for kernel in less.layers} == {200: 4, 72: 8}


def test_a_bias_that_is_too_coarse_for_xnnpack_is_named(tmp_path):
    pytest.importorskip("tflite_micro")
    model, data = with_coarse_biases(4, size=0.004)
    free = exported(model, data, tmp_path)
    with pytest.raises(ExportError, match=r"XNNPACK runtime.* rounded to so many steps"):
        exported(model, data, tmp_path, budget=f"{free.tflite_bytes - 1} B flash")


def exported(model, data, folder, **options):
    return export_tflite(
        model,
        folder / "m.tflite",
        optimize_for="micro",
        calibrate_with=data,
        tolerance=1.0,
        overwrite=True,
        **options,
    )
