"""Inputs that an export verifies with: by name, in batches of any size, of open shapes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import small_data, small_model
from trained_models import with_widths

from bmpq_tf import export_tflite, run_tflite
from bmpq_tf.export.tflite.interpreter import TFLiteModel
from bmpq_tf.export.verification.inputs import input_batches

IMAGES, LABELS = small_data()


@pytest.mark.parametrize(
    "form", [dict, lambda inputs: iter([(inputs, LABELS)])], ids=["dict", "batches"]
)
def test_inputs_by_name_are_taken_in_the_models_order(form, tmp_path):
    query, doc = keras.Input((6,), name="query"), keras.Input((6,), name="doc")
    outputs = keras.layers.Dense(3, name="head")(
        keras.layers.Concatenate()([query, keras.layers.Rescaling(100.0)(doc)])
    )
    model = with_widths(keras.Model([query, doc], outputs), [8])
    generator = np.random.default_rng(0)
    arrays = {
        "doc": generator.uniform(0, 1, (8, 6)).astype("float32"),
        "query": generator.uniform(0, 100, (8, 6)).astype("float32"),
    }
    path = tmp_path / "model.tflite"
    export_tflite(
        model, path, optimize_for="integer", calibrate_with=form(arrays), verify_with=form(arrays)
    )
    (answers,) = TFLiteModel(path.read_bytes())([arrays["query"], arrays["doc"]])
    np.testing.assert_allclose(
        answers, model([arrays["query"], arrays["doc"]]), atol=0.03 * np.abs(answers).max()
    )


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("size", np.asarray),
        pytest.param("integer", lambda images: iter([(images,)]), marks=pytest.mark.slow),
    ],
)
def test_a_fixed_batch_size_is_kept_and_any_number_of_examples_judged(mode, form, tmp_path):
    inputs = keras.Input((6, 6, 2), batch_size=3)
    x = keras.layers.Reshape((36, 2))(
        keras.layers.Conv2D(2, 1, activation="relu", name="conv")(inputs)
    )
    model = with_widths(keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x))), [8])
    path = tmp_path / "model.tflite"
    more = {"calibrate_with": form(IMAGES)} if mode == "integer" else {}
    report = export_tflite(model, path, optimize_for=mode, verify_with=form(IMAGES), **more)
    assert report.parity.examples == len(IMAGES) // 3 * 3 < len(IMAGES)
    file = TFLiteModel(path.read_bytes())
    (answers,) = file([IMAGES])
    assert answers.shape == (len(IMAGES), 3)
    np.testing.assert_array_equal(answers[-1], file([IMAGES[-3:]])[0][-1])
    assert export_tflite(model, path, overwrite=True).parity.generated
    with pytest.raises(ValueError, match="not a whole batch"):
        export_tflite(model, path, verify_with=IMAGES[:2], overwrite=True)


@pytest.mark.slow
def test_one_channel_may_be_left_out_as_keras_allows(tmp_path):
    model = with_widths(
        keras.Sequential([keras.Input((4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]), [4]
    )
    values = np.random.default_rng(0).standard_normal((5, 4)).astype("float32")
    for given in (values, values[..., None]):
        assert (
            export_tflite(
                model, tmp_path / "model.tflite", verify_with=given, overwrite=True
            ).parity.examples
            == 5
        )


@pytest.mark.slow
def test_random_inputs_are_large_enough_for_the_poolings_of_images_of_open_size(tmp_path):
    inputs = x = keras.Input((None, None, 2))
    for _ in range(5):
        x = keras.layers.MaxPooling2D()(keras.layers.Conv2D(2, 3, padding="same")(x))
    model = with_widths(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)), [4])
    assert export_tflite(model, tmp_path / "model.tflite").parity.generated


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            np.zeros((2, 5, 5, 2), "float32"),
            r"do not fit model 'small', which takes .*Received: \[\(2, 5, 5, 2\)\]",
        ),
        (np.full((2, 6, 6, 2), np.nan, "float32"), "hold NaN"),
        pytest.param(iter([]), "has no examples", marks=pytest.mark.slow),
        (iter([IMAGES[:0]]), "has no examples"),
        (
            tf.data.Dataset.from_tensor_slices(IMAGES).batch(4).repeat(),
            r"verify_with are endless.*data.take\(10\)",
        ),
    ],
)
def test_inputs_that_cannot_verify_are_named(data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_tflite(with_widths(small_model(), [4]), tmp_path / "model.tflite", verify_with=data)
    assert not list(tmp_path.iterdir())


def test_empty_batches_are_left_out(tmp_path):
    batches = [IMAGES[:0], IMAGES[:3], IMAGES[:0]]
    path, given = (
        tmp_path / "model.tflite",
        {"verify_with": iter(batches), "calibrate_with": iter(batches)},
    )
    assert (
        export_tflite(
            with_widths(small_model(), [8]), path, optimize_for="integer", **given
        ).parity.examples
        == 3
    )


def test_random_masks_mask_something():
    mask = keras.Input((6,), dtype="bool")
    outputs = keras.layers.Dense(1)(keras.ops.cast(mask, "float32"))
    ((values,),) = input_batches(keras.Model(mask, outputs), None)
    assert values.dtype == bool
    assert 0 < values.mean() < 1


def test_what_a_file_cannot_run_is_refused_in_words(tmp_path):
    report = export_tflite(with_widths(small_model(), [8]), tmp_path / "model.tflite")
    with pytest.raises(ValueError, match=r"Received: a dict of image\. Give a list"):
        run_tflite(report.path, {"image": IMAGES})
    with pytest.raises(ValueError, match=r"Received: _TensorSliceDataset\. Give an array"):
        run_tflite(report.path, tf.data.Dataset.from_tensor_slices(IMAGES))
