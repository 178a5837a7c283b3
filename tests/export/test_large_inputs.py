"""Large inputs: fewer examples where many would cost much, and nothing computed twice."""

import keras
import numpy as np
import pytest

from bmpq_tf import export_tflite, quantize_model
from bmpq_tf.export.converter.convert import to_float_tflite
from bmpq_tf.export.integer import calibration
from bmpq_tf.export.verification import comparison
from bmpq_tf.export.verification.inputs import few_inputs


def convolutional(size: int = 8) -> keras.Model:
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(("size", "few"), [(8, 16), (96, 16), (128, 10), (224, 4), (512, 4)])
def test_the_larger_the_inputs_the_fewer_are_made(size, few):
    model = convolutional(size)
    (made,) = few_inputs(model, None)
    (taken,) = few_inputs(model, np.zeros((20, size, size, 3), "float32"))
    assert len(made) == len(taken) == few


def test_ranges_do_not_depend_on_how_many_examples_run_at_once(monkeypatch):
    content = to_float_tflite(convolutional())
    data = [[np.random.default_rng(0).standard_normal((7, 8, 8, 3), "float32")]]
    together, sizes = calibration.ranges(content, data), []
    parts = calibration._parts
    monkeypatch.setattr(
        calibration, "_parts", lambda batch, size: sizes.append(size) or parts(batch, size)
    )
    # Two examples have 6 x 6 x 4 values of the convolution, its ReLU and a few others.
    monkeypatch.setattr(calibration, "_VALUES_AT_ONCE", 2 * 6 * 6 * 4 + 60)
    apart = calibration.ranges(content, data)
    assert sizes == [2]
    assert apart.keys() == together.keys()
    for name, limits in together.items():
        np.testing.assert_allclose(apart[name], limits, rtol=1e-6)


def test_keras_answers_each_example_once(monkeypatch, tmp_path):
    asked = []
    answers = comparison.keras_answers
    monkeypatch.setattr(
        comparison,
        "keras_answers",
        lambda model, batch: asked.append(len(batch[0])) or answers(model, batch),
    )
    report = export_tflite(
        quantize_model(convolutional()),
        tmp_path / "model.tflite",
        verify_with=np.random.default_rng(0).standard_normal((40, 8, 8, 3), "float32"),
    )
    assert asked == [16, 16, 8]
    assert report.parity.examples == report.parity.compared == 40
