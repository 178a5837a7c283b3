"""What counts as close: by kind of file, by its grids, and where columns are nearly equal."""

import keras
import numpy as np
import pytest

from bmpq_tf import export_tflite, quantize_model
from bmpq_tf.export.tflite.interpreter import TFLiteModel
from bmpq_tf.export.verification import comparison, near_ties, parity


def convolutional():
    inputs = keras.Input((12, 3))
    x = keras.layers.Conv1D(6, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.Conv1D(6, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(x)))


def transformer():
    inputs = keras.Input((12, 4))
    x = keras.layers.LayerNormalization()(keras.layers.Dense(4)(inputs))
    x = keras.layers.Add()([inputs, keras.layers.MultiHeadAttention(2, 2)(x, x)])
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.LayerNormalization()(x))
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def gated():
    inputs = keras.Input((12, 4))
    x = inputs
    for _ in range(3):
        x = keras.layers.Multiply()([x, keras.layers.Softmax()(x)])
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling1D()(x)))


@pytest.mark.parametrize(
    ("build", "bits", "limit"),
    [(convolutional, 8, 0.05), (transformer, 8, 0.2), (gated, 16, 0.01)],
)
def test_integer_files_have_the_limits_of_what_most_of_them_computes(build, bits, limit, tmp_path):
    model = quantize_model(build(), activation_bits=bits)
    data = np.random.default_rng(0).standard_normal((32, *model.input_shape[1:])).astype("float32")
    model(data, training=True)
    report = export_tflite(
        model,
        tmp_path / "model.tflite",
        optimize_for="integer",
        calibrate_with=data,
        verify_with=data,
        tolerance=0.5,
    )
    assert report.parity.mostly_trained == (build is convolutional)
    assert report.parity.rms < report.parity.limits.rms == limit


@pytest.mark.parametrize(
    ("kind", "bits", "mostly_trained", "limits"),
    [
        ("size", 4, True, (1e-4, 0.0)),
        ("latency", None, True, (0.1, 0.9)),
        ("latency", 8, True, (0.1, 0.9)),
        ("latency", 4, True, (0.15, 0.9)),
        ("latency", 2, True, (0.4, 0.85)),
        ("integer", None, False, (0.2, 0.8)),
        ("integer", 4, True, (0.15, 0.9)),
        ("integer", 4, False, (0.2, 0.8)),
        ("integer", 2, False, (0.4, 0.85)),
        ("integer", 16, False, (0.01, 0.95)),
    ],
)
def test_the_wider_limit_holds_where_values_are_rounded_once_more(
    kind, bits, mostly_trained, limits
):
    found = parity.limits_of(kind, bits, mostly_trained)
    assert (found.rms, found.agreement) == limits


def test_columns_that_an_int8_output_cannot_tell_apart_are_no_mistake():
    expected = np.array([[0.401, 0.4, 0.199], [0.45, 0.4, 0.15], [0.1, 0.2, 0.7]], np.float32)
    received = np.array([[0.399, 0.402, 0.199], [0.4, 0.45, 0.15], [0.1, 0.2, 0.7]], np.float32)
    assert near_ties.near_ties(expected, received, 1 / 256) == 1
    assert near_ties.near_ties(expected, received, 0.0) == 0
    # A step of what is no probability may decide.
    assert near_ties.near_ties(expected * 20, received * 20, 20 / 256) == 0
    fields = {
        "max_abs_diff": 0.05,
        "logit_scale": 0.3,
        "examples": 20,
        "generated": False,
        "unexplained_diff": 0.05,
        "optimize_for": "integer",
        "compared": 20,
        "agreement": 0.7,
    }
    assert "top-1 is Keras's for 0.7000" in parity.Parity(**fields).problem
    assert parity.Parity(**fields, near_ties=2).holds


class Mistaken(TFLiteModel):
    """Answers the next class where an input has a 2."""

    def __call__(self, batch):
        (labels,) = super().__call__(batch)
        return [np.where(batch[0].max(-1) == 2, (labels + 1) % 4, labels)]


@pytest.mark.parametrize(
    ("kind", "mistakes", "options", "problem"),
    [
        ("size", 2, {}, ""),
        ("size", 20, {}, "less than the 0.99 that optimize_for="),
        ("size", 20, {"tolerance": 0.1}, ""),
        ("latency", 20, {}, ""),
        ("latency", 40, {}, "less than the 0.9 that optimize_for="),
        ("latency", 40, {"tolerance": 0.01}, "less than the 0.99 that tolerance= asks for"),
    ],
)
def test_labels_are_judged_by_the_share_of_equal_ones(kind, mistakes, options, problem, tmp_path):
    inputs = keras.Input((4,))
    x = keras.layers.Dense(4, use_bias=False, kernel_initializer="identity")(inputs)
    model = quantize_model(keras.Model(inputs, keras.ops.argmax(x, axis=-1)), pin=None)
    data = np.eye(4, dtype="float32")[np.arange(200) % 4]
    export_tflite(model, tmp_path / "model.tflite", verify_with=data)
    data[-mistakes:] *= 2
    content = (tmp_path / "model.tflite").read_bytes()
    found = comparison.compare(model, content, data, kind, **options, runtime=Mistaken)
    assert found.problem.startswith("LiteRT's labels are Keras's for") == bool(problem)
    assert problem in found.problem
    assert found.holds != bool(problem)
