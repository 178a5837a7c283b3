"""Integer files of models that round activations.

The trained ranges are the file's grids, and what is computed are Keras's integers.
"""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from conftest import compiled

from bmpq_research.models.blocks import conv_bn
from bmpq_research.models.digits import digits_cnn
from bmpq_tf import ExportError, export_tflite, quantize_model
from bmpq_tf.export.integer import grids
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.inner_tensors import Exposed
from bmpq_tf.export.tflite.inspection import inspect_tflite
from bmpq_tf.export.tflite.interpreter import TFLiteModel
from bmpq_tf.export.verification import comparison, parity
from bmpq_tf.layers import QuantIdentity

BUILTIN = schema.BuiltinOperator


def residual():
    """A block with a projection and one without, as in ResNets."""
    inputs = keras.Input((8, 8, 1))
    x = conv_bn(inputs, 6, name="stem")
    for block, filters in enumerate((6, 8)):
        shortcut = x if block == 0 else conv_bn(x, filters, 1, relu=False, name="shortcut")
        x = conv_bn(conv_bn(x, filters, name=f"a{block}"), filters, relu=False, name=f"b{block}")
        x = keras.layers.ReLU(name=f"relu{block}")(keras.layers.Add()([x, shortcut]))
    return keras.Model(
        inputs, keras.layers.Dense(10, name="head")(keras.layers.GlobalAveragePooling2D()(x))
    )


def small_digits_cnn():
    return digits_cnn(channel_multiplier=0.25)


def digits(count=64):
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels[:count].reshape(-1, 8, 8, 1).astype("float32") / 16, labels[:count]


def trained(model, bits, steps):
    model = compiled(quantize_model(model, (4,), activation_bits=bits), run_eagerly=True)
    for _ in range(steps):
        model.train_on_batch(*digits())
    return model


def with_ranges(model, data, bits=8):
    """A model whose ranges a first batch has set."""
    model = quantize_model(model, (8,), activation_bits=bits)
    model(data, training=True)
    return model


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def integer_file(model, path, data, **more):
    report = export_tflite(
        model, path, optimize_for="integer", calibrate_with=data, verify_with=data, **more
    )
    return report, flatbuffer.parse(path.read_bytes())


def operators(file):
    """How many there are of each kind."""
    codes = [flatbuffer.builtin_of(file, operator) for operator in file.subgraphs[0].operators]
    return {code: codes.count(code) for code in codes}


def grids_in(file):
    """The scale and the zero point of every int8 tensor with one scale."""
    return [
        (float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]))
        for tensor in file.subgraphs[0].tensors
        if tensor.type == flatbuffer.INT8 and flatbuffer.scale_count(tensor) == 1
    ]


@pytest.mark.parametrize(
    ("build", "bits", "io_dtype", "steps"),
    [
        (residual, 8, "float32", 10),
        pytest.param(small_digits_cnn, 4, "int8", 24, marks=pytest.mark.slow),
        pytest.param(small_digits_cnn, 8, "int8", 24, marks=pytest.mark.slow),
        pytest.param(residual, 4, "float32", 40, marks=pytest.mark.slow),
    ],
)
def test_trained_ranges_are_the_files_and_nothing_in_it_is_float(
    build, bits, io_dtype, steps, tmp_path
):
    model = trained(build(), bits, steps)
    report, file = integer_file(model, tmp_path / "model.tflite", digits()[0], io_dtype=io_dtype)
    subgraph = file.subgraphs[0]
    floats = {
        index for index, tensor in enumerate(subgraph.tensors) if tensor.type == flatbuffer.FLOAT32
    }
    assert floats == (
        {int(index) for index in [*subgraph.inputs, *subgraph.outputs]}
        if io_dtype == "float32"
        else set()
    )
    found = grids_in(file)
    for quantizer in comparison.activation_quantizers(model):
        zero_point = quantizer.zero_point * 255 // (2**quantizer.bits - 1) - 128
        assert any(
            abs(scale / (float(quantizer.clip()) / 255) - 1) < 1e-5 and zero == zero_point
            for scale, zero in found
        ), quantizer.path
    assert report.parity.rms <= {8: 0.03, 4: 0.12}[bits]
    assert report.parity.agreement >= 0.95
    assert inspect_tflite(tmp_path / "model.tflite").orphaned_bytes == 0


@pytest.mark.parametrize(
    ("bits", "io_dtype"),
    [
        pytest.param(8, "float32", marks=pytest.mark.slow),
        (4, "int8"),
        pytest.param(2, "float32", marks=pytest.mark.slow),
    ],
)
def test_the_integers_are_the_quantizers_beyond_both_ends_too(bits, io_dtype, tmp_path):
    """A signed quantizer of what a layer computes; data beyond its range on both sides."""
    data = normal(64, 12)
    inputs = keras.Input((12,))
    x = QuantIdentity(bits=bits, name="rounded")(keras.layers.Dense(9, name="dense")(inputs))
    model = with_ranges(keras.Model(inputs, keras.layers.Dense(3, name="head")(x)), data, bits)
    quantizer = model.get_layer("rounded").activation_quantizer
    quantizer.first_range.assign(quantizer.first_range * [0.6, 1.0])
    integer_file(model, tmp_path / "model.tflite", data, io_dtype=io_dtype, tolerance=0.9)
    step = float(quantizer.clip()) / (2**bits - 1)
    values = keras.Model(model.input, model.get_layer("rounded").output)(data).numpy()
    assert {round(float(values.min() / step)), round(float(values.max() / step))} == {
        -quantizer.zero_point,
        2**bits - 1 - quantizer.zero_point,
    }
    for xnnpack in (True, False):
        inner = Exposed((tmp_path / "model.tflite").read_bytes(), xnnpack)([data])[1]
        apart = [
            np.abs(found - values) / step for found in inner.values() if found.shape == values.shape
        ]
        # All but values that lie at an edge between two steps.
        assert min(float((one > 0.1).mean()) for one in apart) <= 0.01
        assert min(float(one.max()) for one in apart) <= 1.1


@pytest.mark.slow
def test_without_data_everything_needs_a_quantizer(tmp_path):
    data = normal(32, 12)
    inputs = keras.Input((12,))
    x = keras.layers.Dense(8, activation="relu", name="wide")(inputs)
    x = keras.layers.Dense(3, name="head")(x)
    open_end = with_ranges(keras.Model(inputs, x, name="open"), data)
    with pytest.raises(
        ValueError, match=r"of model 'open' .*: output 0 need data\. Received: calibrate_with=None"
    ):
        export_tflite(open_end, tmp_path / "model.tflite", optimize_for="integer")
    assert not list(tmp_path.iterdir())
    closed = with_ranges(keras.Model(inputs, QuantIdentity(name="last")(x)), data)
    report = export_tflite(
        closed, tmp_path / "model.tflite", optimize_for="integer", verify_with=data, io_dtype="int8"
    )
    assert report.parity.agreement >= 0.9
    assert report.parity.rms < 0.02
    assert operators(flatbuffer.parse((tmp_path / "model.tflite").read_bytes())) == {
        BUILTIN.FULLY_CONNECTED: 2,
        BUILTIN.QUANTIZE: 1,
    }


@keras.saving.register_keras_serializable("tests")
class Halves(keras.layers.Layer):
    def call(self, inputs):
        return tf.split(inputs, 2, axis=-1)


@pytest.mark.slow
def test_a_range_is_not_forced_on_the_other_part_of_what_was_split(tmp_path):
    data = normal(64, 12)
    inputs = keras.Input((12,))
    rounded, other = Halves(name="halves")(keras.layers.Dense(8, name="dense")(inputs))
    rounded = QuantIdentity(bits=2, name="rounded")(rounded)
    outputs = [keras.layers.Dense(3, name="one")(rounded), keras.layers.Dense(3, name="two")(other)]
    model = with_ranges(keras.Model(inputs, outputs), data)
    quantizer = model.get_layer("rounded").activation_quantizer
    quantizer.first_range.assign(quantizer.first_range * [0.6, 1.0])
    integer_file(model, tmp_path / "model.tflite", data)
    expected = model.predict(data, verbose=0)[1]
    found = TFLiteModel((tmp_path / "model.tflite").read_bytes())([data])[1]
    assert np.sqrt(np.mean((found - expected) ** 2)) <= 0.03 * expected.std()


def test_an_output_that_a_quantizer_reads_too_is_int8(tmp_path):
    data = normal(48, 6)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(5, activation="relu", name="hidden")(inputs)
    model = with_ranges(
        keras.Model(inputs, [keras.layers.Dense(3, name="head")(hidden), hidden]), data
    )
    _, file = integer_file(model, tmp_path / "model.tflite", data, io_dtype="int8")
    assert {tensor.type for tensor in file.subgraphs[0].tensors} <= {
        flatbuffer.INT8,
        schema.TensorType.INT32,
    }


def test_tensors_that_are_moved_joined_averaged_and_read_twice(tmp_path):
    """Pools and a concatenation of two grids between quantizers.

    One tensor that two quantizers of unlike ranges and an addition read.
    """
    data = normal(48, 8, 8, 3)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.ReLU()(keras.layers.Conv2D(6, 3, padding="same", name="stem")(inputs))
    x = keras.layers.Concatenate()(
        [keras.layers.MaxPooling2D()(x), keras.layers.AveragePooling2D(2)(x)]
    )
    x = keras.layers.Conv2D(6, 3, padding="same", name="twice")(x)
    one, two = (
        keras.layers.Conv2D(6, 1, name=name)(QuantIdentity(name=f"of_{name}")(x))
        for name in ("one", "two")
    )
    x = keras.layers.Flatten()(keras.layers.Add()([x, one, two]))
    model = with_ranges(keras.Model(inputs, keras.layers.Dense(3, name="head")(x)), data)
    # Averages and quantizers of quantizers on equal or doubled steps would all lie at edges.
    for number, quantizer in enumerate(comparison.activation_quantizers(model)):
        quantizer.first_range.assign(quantizer.first_range * [0.83 + 0.031 * number, 1.0])
    report, file = integer_file(model, tmp_path / "model.tflite", data)
    assert report.parity.rms <= report.parity.rms_limit == 0.05
    assert {
        BUILTIN.MAX_POOL_2D,
        BUILTIN.AVERAGE_POOL_2D,
        BUILTIN.CONCATENATION,
        BUILTIN.QUANTIZE,
    } <= set(operators(file))
    assert BUILTIN.FAKE_QUANT not in operators(file)


def test_limits_are_tighter_where_keras_rounds_too(tmp_path, monkeypatch):
    data = normal(32, 12)
    inputs = keras.Input((12,))
    model = with_ranges(keras.Model(inputs, keras.layers.Dense(3)(inputs)), data)
    report, _ = integer_file(model, tmp_path / "model.tflite", data)
    assert report.parity.rms_limit < parity.LIMITS["integer"].rms
    honest = grids.place

    def wider(file, model):
        return {
            index: dataclasses.replace(grid, step=16 * grid.step)
            for index, grid in honest(file, model).items()
        }

    monkeypatch.setattr(grids, "place", wider)
    with pytest.raises(
        ExportError,
        match=r'root mean square.*more than the 0\.05 that optimize_for="integer" allows',
    ):
        integer_file(model, tmp_path / "other.tflite", data)
