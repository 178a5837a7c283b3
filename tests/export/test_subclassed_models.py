"""Models written as classes become files, frozen in place for as long as that takes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled
from subclassed_models import (
    IMAGES,
    INDICES,
    MODELS,
    SEQUENCES,
    VECTORS,
    OfTensorFlow,
    Reader,
    ResNet,
    TwoInputs,
)

import bmpq_tf
from bmpq_tf import export_tflite, kernel_table, quantize_model
from bmpq_tf.export.tflite.interpreter import TFLiteModel


def trained(name, **arguments):
    make, inputs, _ = MODELS[name]
    model = make()
    model(inputs)
    model = quantize_model(model, (2, 4, 8), **{"pin": None, **arguments})
    rows = kernel_table(model)
    bmpq_tf.assign_bits(model, {rows[0].path: 2, rows[-1].path: 4})
    return model, inputs


@pytest.mark.parametrize("name", MODELS)
def test_they_are_packed_and_stay_as_they_were(name, tmp_path):
    model, inputs = trained(name)
    before, kept = model(inputs), model.get_weights()
    report = export_tflite(model, tmp_path / "m.tflite", verify_with=inputs)
    assert report.parity.holds
    assert {2, 4} <= {layer.bits for layer in report.layers} <= {2, 4, 8}
    assert all(layer.compute == "weight_only" for layer in report.layers)
    for value, again in zip(kept, model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, again)
    np.testing.assert_array_equal(model(inputs), before)


@pytest.mark.parametrize("name", ["resnet", "autoencoder", "twice", "of tensorflow"])
@pytest.mark.parametrize("kind", ["latency", "integer"])
def test_they_compute_in_integers(name, kind, tmp_path):
    model, inputs = trained(name)
    data = {"calibrate_with": inputs} if kind == "integer" else {}
    report = export_tflite(
        model, tmp_path / "m.tflite", optimize_for=kind, verify_with=inputs, tolerance=0.5, **data
    )
    assert report.parity.holds


@pytest.mark.slow
def test_trained_ranges_of_activations_are_the_file_s(tmp_path):
    model, inputs = trained("resnet", activation_bits=8)
    compiled(model).fit(inputs, np.zeros(16, int), verbose=0)
    before = model(inputs)
    report = export_tflite(
        model, tmp_path / "m.tflite", optimize_for="integer", calibrate_with=inputs
    )
    assert report.parity.holds
    # Neither the marks nor the constants of the conversion are left.
    np.testing.assert_array_equal(model(inputs), before)
    compiled(model).fit(inputs, np.zeros(16, int), verbose=0)


def test_a_model_for_a_microcontroller(tmp_path):
    pytest.importorskip("tflite_micro")
    model, inputs = trained("resnet")
    report = export_tflite(
        model, tmp_path / "m.tflite", optimize_for="micro", calibrate_with=inputs, tolerance=0.5
    )
    assert "golden.h" in bmpq_tf.write_firmware(report.path, tmp_path / "firmware", inputs)


def test_a_model_that_is_refused_is_thawed_too(tmp_path, monkeypatch):
    model, _ = trained("autoencoder")
    kept = model.get_weights()

    def failing(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("bmpq_tf.export.stages.to_float_model", failing)
    with pytest.raises(MemoryError):
        export_tflite(model, tmp_path / "m.tflite")
    for value, again in zip(kept, model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, again)
    assert not any(part._frozen for part in model.encoder.layers if hasattr(part, "_frozen"))


@pytest.mark.parametrize(
    "shapes", [(8, 8, 3), tf.TensorSpec((None, 8, 8, 3), "float32"), keras.Input((8, 8, 3))]
)
def test_what_it_takes_can_be_said(shapes, tmp_path):
    model = ResNet()
    model(IMAGES[:2])
    quantize_model(model, (4,), pin=None)
    report = export_tflite(model, tmp_path / "m.tflite", input_shapes=shapes)
    assert report.parity.holds


def test_two_arguments_by_name_and_a_dict_of_answers(tmp_path):
    model = TwoInputs()
    model(VECTORS, SEQUENCES)
    quantize_model(model, (4,), pin=None)
    shapes = {"vector": (16,), "sequence": (4, 5)}
    data = {"vector": VECTORS, "sequence": SEQUENCES}
    for given in ({"input_shapes": shapes}, {"verify_with": data}):
        report = export_tflite(model, tmp_path / "m.tflite", overwrite=True, **given)
        assert report.parity.holds


def test_indices_stay_integers_where_data_say_so(tmp_path):
    model, _ = trained("reader")
    data = tf.data.Dataset.from_tensor_slices((INDICES, INDICES)).batch(8)
    export_tflite(model, tmp_path / "m.tflite", verify_with=data)
    file = TFLiteModel((tmp_path / "m.tflite").read_bytes())
    assert file.inputs[0]["dtype"] == np.int32
    assert isinstance(model, Reader)


def test_one_that_was_never_built_is_told_what_to_say(tmp_path):
    model = quantize_model(OfTensorFlow(), pin=None)
    with pytest.raises(ValueError, match="is not built"):
        export_tflite(model, tmp_path / "m.tflite")


class OfNumpy(keras.Model):
    """Asks for the values of what it computes."""

    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(2)

    def call(self, x):
        return self.head(keras.ops.convert_to_tensor(np.maximum(x.numpy(), 0)))


def test_one_that_no_graph_holds_is_refused_by_its_line(tmp_path):
    model = OfNumpy()
    model(VECTORS)
    quantize_model(model, pin=None)
    with pytest.raises(
        ValueError, match=r"line \d+ of test_subclassed_models.py, in call of '.*' "
    ):
        export_tflite(model, tmp_path / "m.tflite")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_in_float32_where_it_was_trained_in_16_bits(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        model, inputs = trained("resnet")
    finally:
        keras.config.set_dtype_policy("float32")
    assert export_tflite(model, tmp_path / "m.tflite", verify_with=inputs).parity.holds
    assert bmpq_tf.compare_tflite(model, tmp_path / "m.tflite", inputs).holds
    assert model.stem.compute_dtype == policy.removeprefix("mixed_")


def test_files_are_compared_with_them(tmp_path):
    model, inputs = trained("autoencoder")
    path = export_tflite(model, tmp_path / "m.tflite", verify_with=inputs).path
    assert bmpq_tf.compare_tflite(model, path, inputs).holds
    assert bmpq_tf.compare_tflite(model, path).holds
