"""Exports that leave no file: answers or integers that differ, budgets, sizes, paths."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import small_data, small_model
from trained_models import remember_budget, with_widths

from bmpq_tf import (
    ExportError,
    export_tflite,
    quantize_model,
)
from bmpq_tf.export import checks, stages
from bmpq_tf.export.errors import ConversionError
from bmpq_tf.export.kernels import packing
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.verification import comparison
from bmpq_tf.model.kernels import model_kernels

IMAGES, LABELS = small_data()


def give_wrong_scales(monkeypatch) -> None:
    """Gives the first channel of each kernel a wrong scale, which the answers alone then show."""
    honest = packing.stored_kernel

    def wrong_scales(*given):
        kernel = honest(*given)
        kernel.scales[0] *= 1.5
        return kernel

    monkeypatch.setattr(packing, "stored_kernel", wrong_scales)
    monkeypatch.setattr(stages, "check_constants", lambda *given: None)


def test_answers_that_differ_leave_no_file(tmp_path, monkeypatch):
    model = with_widths(small_model(), [4])
    give_wrong_scales(monkeypatch)
    with pytest.raises(ExportError, match="answers differ from Keras's by up to"):
        export_tflite(model, tmp_path / "model.tflite", verify_with=IMAGES)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_small_answers_are_compared_too(tmp_path, monkeypatch):
    inputs = keras.Input((6,))
    model = with_widths(
        keras.Model(
            inputs, keras.layers.Rescaling(1e-4)(keras.layers.Dense(3, name="dense")(inputs))
        ),
        [4],
    )
    data = np.random.default_rng(0).standard_normal((20, 6)).astype("float32")
    assert (
        export_tflite(model, tmp_path / "good.tflite", verify_with=data).parity.logit_scale < 1e-3
    )
    give_wrong_scales(monkeypatch)
    with pytest.raises(ExportError, match="more than the 1e-06 that rounding explains"):
        export_tflite(model, tmp_path / "bad.tflite", verify_with=data)


def test_integers_that_differ_leave_no_file(tmp_path, monkeypatch):
    model = with_widths(small_model(), [4])
    honest = packing.pack

    def corrupted(file, pairs):
        content = honest(file, pairs)
        tensor = next(t for t in content.subgraphs[0].tensors if t.type in flatbuffer.PACKED_BITS)
        data = np.array(content.buffers[tensor.buffer].data)
        data[0] ^= 1
        content.buffers[tensor.buffer].data = data
        return content

    monkeypatch.setattr(packing, "pack", corrupted)
    with pytest.raises(ExportError, match="does not hold the integers of kernel"):
        export_tflite(model, tmp_path / "model.tflite", verify_with=IMAGES)
    assert not list(tmp_path.iterdir())


def test_nan_from_the_runtime_is_a_difference(tmp_path, monkeypatch):
    model = with_widths(small_model(), [4])
    honest = comparison.TFLiteModel.__call__
    monkeypatch.setattr(
        comparison.TFLiteModel,
        "__call__",
        lambda self, inputs: [output * np.nan for output in honest(self, inputs)],
    )
    with pytest.raises(ExportError, match="answers NaN or infinity"):
        export_tflite(model, tmp_path / "model.tflite", verify_with=IMAGES)


@pytest.mark.parametrize("name", ["kernel", "bias"])
def test_a_model_whose_training_ran_away_is_refused_before_any_work(name, tmp_path):
    model = with_widths(small_model(), [4])
    variable = {one.path: one for one in model.variables}[f"hidden/{name}"]
    variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(ValueError, match=rf"ran away.*'hidden/{name}'\. Train it again"):
        export_tflite(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_an_export_over_budget_is_refused(tmp_path):
    model = with_widths(small_model(), [8])
    with pytest.raises(
        ValueError, match=r"over its budget.*Received: budget='10x'; the model is 4.00x"
    ):
        export_tflite(model, tmp_path / "model.tflite", budget="10x")
    remember_budget(model, 12)
    with pytest.raises(ValueError, match="budget='12x'"):
        export_tflite(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_more_weights_than_a_file_holds_are_refused_before_the_conversion(tmp_path, monkeypatch):
    model = with_widths(small_model(), [2])
    weights = sum(state.kernel.weights for state in model_kernels(model))
    monkeypatch.setattr(flatbuffer, "LARGEST_BYTES", 4 * weights - 1)
    monkeypatch.setattr(stages, "to_float_model", lambda model: pytest.fail("Converted."))
    message = (
        rf"Received: {weights:,} weights, {4 * weights:,} bytes; the limit is "
        rf"{4 * weights - 1:,}\. .* is 'hidden/kernel' with 768\."
    )
    with pytest.raises(ValueError, match=message):
        export_tflite(model, tmp_path / "model.tflite")


def test_a_memory_that_is_full_is_no_fault_of_the_model(tmp_path, monkeypatch):
    def full(*given, **more):
        raise MemoryError

    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", full)
    with pytest.raises(MemoryError):
        export_tflite(with_widths(small_model(), [4]), tmp_path / "model.tflite")


def test_paths_that_cannot_be_written_are_refused_first(tmp_path):
    model = with_widths(small_model(), [4])
    (tmp_path / "there.tflite").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export_tflite(model, tmp_path / "there.tflite")
    assert (tmp_path / "there.tflite").read_text() == "mine"
    export_tflite(model, tmp_path / "there.tflite", overwrite=True)
    assert (tmp_path / "there.tflite").read_bytes()[4:8] == b"TFL3"
    with pytest.raises(IsADirectoryError, match="is a folder"):
        export_tflite(model, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match="Nothing can be written"):
        checks.check_writable(tmp_path / "file" / "model.tflite")


def test_a_layer_without_a_builtin_is_named(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Bessel(keras.layers.Layer):
        def call(self, inputs):
            return tf.math.bessel_i0(inputs)

    inputs = keras.Input((4,))
    model = quantize_model(
        keras.Model(inputs, Bessel(name="odd")(keras.layers.Dense(3)(inputs))), pin=None
    )
    with pytest.raises(
        ConversionError, match=r"no builtin for tf.BesselI0 of layer 'odd' \(Bessel\)\."
    ):
        export_tflite(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())
