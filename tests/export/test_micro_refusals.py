"""What TFLM stops at, in words that help."""

import keras
import numpy as np
import pytest

from bmpq_tf import ExportError, export_tflite, quantize_model

pytest.importorskip("tflite_micro")


def test_what_tflm_stops_at_is_named_by_its_layer(tmp_path):
    frames = keras.Input((2, 3, 3, 1))
    inner = keras.layers.Conv2D(2, 2, name="inner")
    x = keras.layers.TimeDistributed(inner, name="steps")(frames)
    model = keras.Model(frames, keras.layers.Dense(3, name="head")(keras.layers.Flatten()(x)))
    data = np.random.default_rng(0).standard_normal((8, 2, 3, 3, 1)).astype("float32")
    # It has the operator, but not for five axes.
    with pytest.raises(
        ExportError,
        match=r"STRIDED_SLICE.* It is layer 'steps' \(TimeDistributed\)\. Build that part from",
    ):
        export_tflite(
            quantize_model(model),
            tmp_path / "model.tflite",
            optimize_for="micro",
            calibrate_with=data,
            tolerance=0.9,
        )
    assert not list(tmp_path.iterdir())
