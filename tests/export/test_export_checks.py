"""What keeps a file of any kind from being written: options, data, a runtime that refuses it or
answers otherwise, a full disk.
"""

import pathlib
import re

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from conftest import small_data, small_model
from test_optimize_for import export, model_of_all_widths
from trained_models import with_widths

from bmpq_tf import ExportError, compare_tflite, export_tflite, run_tflite
from bmpq_tf.export import checks, stages
from bmpq_tf.export.kernels import packing, storage

IMAGES, _ = small_data()
BUILTIN = schema.BuiltinOperator


@pytest.fixture(scope="module")
def model():
    return model_of_all_widths()


def without_guard(monkeypatch, builtin: int, bits: int) -> None:
    """Has kernels of an operator held as it does not compute rightly."""
    honest = storage.choose

    def choose(mode, of, *given):
        return storage.Container(bits, "dynamic") if of == builtin else honest(mode, of, *given)

    monkeypatch.setattr(storage, "choose", choose)


def test_a_kernel_that_answers_nan_is_not_emitted(tmp_path, monkeypatch):
    """A convolution with int2 weights beside float inputs.

    With the guard removed the parity check still finds it.
    """
    without_guard(monkeypatch, BUILTIN.CONV_2D, 2)
    two_bit = with_widths(small_model(), [2])
    with pytest.raises(
        ExportError, match=r"answers NaN or infinity.*the first tensor that differs is '.*relu"
    ):
        export(two_bit, tmp_path / "model.tflite", "latency", IMAGES)
    assert not list(tmp_path.iterdir())


def test_a_file_that_litert_refuses_is_not_written(model, tmp_path, monkeypatch):
    without_guard(monkeypatch, BUILTIN.DEPTHWISE_CONV_2D, 4)
    with pytest.raises(ExportError, match=r"LiteRT does not run the file: .*DEPTHWISE_CONV_2D"):
        export(model, tmp_path / "model.tflite", "latency", IMAGES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"optimize_for": "speed"},
            "Received: optimize_for='speed'. Known: size, latency, integer",
        ),
        ({"optimize_for": "integer"}, "Received: calibrate_with=None. Give a few hundred inputs"),
        ({"calibrate_with": IMAGES}, "calibrate_with serves"),
        (
            {"tolerance": float("nan")},
            r"tolerance= is a positive number.*Received: tolerance=nan",
        ),
        (
            {"optimize_for": "latency", "tolerance": -1},
            "Received: tolerance=-1",
        ),
        (
            {"optimize_for": "integer", "calibrate_with": IMAGES[:, :5]},
            r"in calibrate_with do not fit model 'small'.*Received: \[\(32, 5, 6, 2\)\]",
        ),
        (
            {"optimize_for": "integer", "calibrate_with": IMAGES * np.nan},
            "in calibrate_with for model 'small' hold NaN",
        ),
        ({"optimize_for": "integer", "calibrate_with": iter([])}, "calibrate_with has no examples"),
        (
            {"optimize_for": "integer", "calibrate_with": IMAGES, "io_dtype": "int4"},
            "Received: io_dtype='int4'. Known: float32, int8, uint8",
        ),
        ({"io_dtype": "int8"}, r"io_dtype='int8', optimize_for='size'. Leave it out"),
    ],
)
def test_options_and_data_that_do_not_fit_are_named(options, message, model, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_tflite(model, tmp_path / "model.tflite", **options)
    assert not list(tmp_path.iterdir())


def test_a_wrong_scale_names_the_first_tensor_and_the_worst(model, tmp_path, monkeypatch):
    honest = packing.stored_kernel

    def wrong(match, *given):
        kernel = honest(match, *given)
        if match.kernel.layer == "hidden":
            kernel.scales[:] *= 3
        return kernel

    monkeypatch.setattr(packing, "stored_kernel", wrong)
    # What compares constants would find it first.
    monkeypatch.setattr(stages, "check_constants", lambda *arguments: None)
    with pytest.raises(ExportError, match="root mean square") as error:
        export(model, tmp_path / "model.tflite", "latency", IMAGES)
    assert re.search(
        r"the first tensor that differs is '[^']*hidden[^']*' .*; the worst are '", str(error.value)
    )
    assert not list(tmp_path.iterdir())


def test_a_tolerance_of_ones_own_is_kept_to(model, tmp_path):
    with pytest.raises(ExportError, match=r"more than the 1e-05 that .*say so with tolerance="):
        export(model, tmp_path / "model.tflite", "latency", IMAGES, tolerance=1e-5)
    assert (
        export(model, tmp_path / "model.tflite", "latency", IMAGES, tolerance=0.5)[
            0
        ].parity.rms_limit
        == 0.5
    )


def test_a_full_disk_leaves_nothing(model, tmp_path, monkeypatch):

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    (tmp_path / "model.tflite").write_text("mine")
    with pytest.raises(OSError, match="No space left"):
        export_tflite(model, tmp_path / "model.tflite", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]
    assert (tmp_path / "model.tflite").read_text() == "mine"


def test_a_file_is_run_on_one_example_or_more_and_compared_as_a_kind_that_is_known(model, tmp_path):
    path = export_tflite(model, tmp_path / "model.tflite").path
    with pytest.raises(ValueError, match=r"no examples.*Received: inputs of shape \(0, 6, 6, 2\)"):
        run_tflite(path, IMAGES[:0])
    with pytest.raises(ValueError, match=r"Received: optimize_for='fast'. Known: size, latency,"):
        compare_tflite(model, path, IMAGES, optimize_for="fast")


def test_nan_is_found_in_each_of_two_layers_that_share_a_path():
    def part(name, value):
        inputs = keras.Input((3,))
        inner = keras.Model(inputs, keras.layers.Dense(3, name="dense")(inputs), name=name)
        inner.get_layer("dense").kernel.assign(np.full((3, 3), value))
        return inner

    inputs = keras.Input((3,))
    parts = [part("one", np.nan), part("other", 1.0)]
    model = keras.Model(inputs, parts[1](parts[0](inputs)))
    with pytest.raises(ValueError, match=r"holds NaN or infinity.*Received: 'dense/kernel'"):
        checks.check_finite(model, [])


def test_averages_of_models_of_other_widths_are_refused(tmp_path):
    model = with_widths(small_model(), [4, 8])
    quantizer = model.get_layer("hidden").kernel_quantizer
    quantizer.bits.assign(0.999 * quantizer.bits + 0.001 * quantizer.bits)
    export_tflite(model, tmp_path / "model.tflite")
    quantizer.bits.assign(5.5)
    with pytest.raises(ValueError, match=r"no whole numbers.*'hidden/kernel' 5\.5 bits"):
        export_tflite(model, tmp_path / "model.tflite", overwrite=True)
