"""Exports of a part of a model, and of one with sizes that it leaves open."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_optimize_for import export
from trained_models import with_widths

from bmpq_tf import BMPQCallback, ConversionError, compare_tflite, export_tflite, quantize_model
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.model.kernels import model_kernels

TEXTS = np.array(["a b", "c", "b a c", "d"] * 8)
NUMBERS = np.random.default_rng(0).standard_normal((32, 3)).astype("float32")


def text_model(table):
    texts, numbers = keras.Input((), dtype="string"), keras.Input((3,), name="numbers")
    x = keras.layers.Embedding(20, 4)(table(texts))
    x = keras.layers.Concatenate()([keras.layers.Flatten()(x), numbers])
    return with_widths(keras.Model([texts, numbers], keras.layers.Dense(3)(x)), [4])


def vectorization():
    layer = keras.layers.TextVectorization(20, output_sequence_length=5, name="words")
    layer.adapt(["a b c d"])
    return layer


@pytest.mark.parametrize("kind", ["size", "integer"])
def test_a_model_with_a_table_is_exported_from_its_output_on(kind, tmp_path):
    model = text_model(vectorization())
    data, path = [TEXTS, NUMBERS], tmp_path / "model.tflite"
    with pytest.raises(ConversionError, match=r"'words' \(TextVectorization\).*inputs='words'"):
        export(model, path, kind, data)
    report, file = export(model, path, kind, data, inputs=["words", "numbers"])
    assert (report.parity.generated, report.parity.examples) == (False, 32)
    shapes = [list(file.subgraphs[0].tensors[i].shape) for i in file.subgraphs[0].inputs]
    assert shapes == [[1, 5], [1, 3]]
    (signature,) = file.signatureDefs
    assert [entry.name for entry in signature.inputs] == [b"words", b"numbers"]


def test_batches_of_any_form_go_through_what_comes_before(tmp_path):
    model = text_model(vectorization())
    data = tf.data.Dataset.from_tensor_slices((TEXTS, NUMBERS)).map(lambda *x: (x, 0)).batch(16)
    start = [model.get_layer("words").output, model.inputs[1]]
    for number, form in enumerate([data, iter(data)]):
        path = tmp_path / f"{number}.tflite"
        assert export_tflite(model, path, verify_with=form, inputs=start).parity.examples == 32


@pytest.mark.parametrize("layer", ["StringLookup", "IntegerLookup", "Hashing"])
def test_every_table_is_refused_by_name_before_any_work(layer, tmp_path):
    table = {
        "StringLookup": lambda: keras.layers.StringLookup(vocabulary=["a"], name="table"),
        "IntegerLookup": lambda: keras.layers.IntegerLookup(vocabulary=[3], name="table"),
        "Hashing": lambda: keras.layers.Hashing(9, name="table"),
    }[layer]()
    inputs = keras.Input((2,), dtype="int64" if layer == "IntegerLookup" else "string")
    x = keras.layers.Flatten()(keras.layers.Embedding(20, 4)(table(inputs)))
    model = with_widths(keras.Model(inputs, keras.layers.Dense(3)(x)), [4])
    with pytest.raises(ConversionError, match=rf"Layer 'table' \({layer}\)"):
        export_tflite(model, tmp_path / "model.tflite")
    assert export_tflite(model, tmp_path / "model.tflite", inputs="table").parity.generated


def test_a_table_in_a_nested_model_is_passed_with_it(tmp_path):
    texts = keras.Input((), dtype="string")
    front = keras.Sequential([texts, vectorization()], name="front")
    x = keras.layers.Flatten()(keras.layers.Embedding(20, 4)(front(texts)))
    model = with_widths(keras.Model(texts, keras.layers.Dense(3)(x)), [4])
    with pytest.raises(ConversionError, match=r"'words' \(TextVectorization\).*inputs='front'"):
        export_tflite(model, tmp_path / "model.tflite")
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=TEXTS, inputs="front")
    assert not report.parity.generated


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ("nothing", "No layer of model .* is called 'nothing'.*words"),
        ("words", "need more than that"),
        (keras.KerasTensor((None, 5)), "no tensor of model"),
    ],
)
def test_a_start_that_is_none_is_refused(inputs, told, tmp_path):
    model = text_model(vectorization())
    with pytest.raises(ValueError, match=told):
        export_tflite(model, tmp_path / "model.tflite", inputs=inputs)


def open_model(interpolation="bilinear"):
    inputs = keras.Input((None, None, 3), name="image")
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
    x = keras.layers.UpSampling2D((2, 3), interpolation=interpolation)(x)
    return with_widths(keras.Model(inputs, keras.layers.Conv2D(3, 1, name="last")(x)), [4])


@pytest.mark.parametrize("kind", ["size", "latency", "integer"])
@pytest.mark.parametrize("shapes", [(8, 8, 3), {"image": (8, 8, 3)}, [(8, 8, 3)]])
def test_sizes_that_a_model_leaves_open_are_fixed(shapes, kind, tmp_path):
    images = np.random.default_rng(0).random((16, 8, 8, 3), "float32")
    model, path = open_model(), tmp_path / "model.tflite"
    report, file = export(model, path, kind, images, input_shapes=shapes)
    (given,) = file.subgraphs[0].inputs
    assert list(file.subgraphs[0].tensors[given].shape) == [1, 8, 8, 3]
    assert flatbuffer.text(file.signatureDefs[0].inputs[0].name) == "image"
    assert report.parity.examples == 16
    assert model.inputs[0].shape == (None, None, None, 3)


@pytest.mark.parametrize("kind", ["size", "latency", "integer"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_images_of_any_size_are_upsampled(interpolation, kind, tmp_path):
    images = np.random.default_rng(0).random((16, 8, 8, 3), "float32")
    model, path = open_model(interpolation), tmp_path / "model.tflite"
    report, _ = export(model, path, kind, images)
    assert report.parity.rms < (1e-5 if kind == "size" else 0.05)
    larger = np.random.default_rng(1).random((2, 12, 10, 3), "float32")
    assert compare_tflite(model, path, larger, optimize_for=kind).holds


def test_a_model_that_takes_no_inputs_of_our_own_sizes_asks_for_the_users(tmp_path):
    inputs = keras.Input((None, 1))
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Conv1D(4, 100, strides=50)(inputs))
    model = with_widths(keras.Model(inputs, keras.layers.Dense(2, name="last")(x)), [4])
    path = tmp_path / "model.tflite"
    with pytest.raises(ValueError, match=r"on the random inputs of 64 .* Give verify_with="):
        export_tflite(model, path)
    sounds = np.random.default_rng(0).random((4, 200, 1), "float32")
    assert export_tflite(model, path, verify_with=sounds).parity.holds


@pytest.mark.parametrize("shapes", [(8, 8), (8, 8, 4), {"picture": (8, 8, 3)}, [(8, 8, 3)] * 2])
def test_sizes_that_do_not_fit_are_refused(shapes, tmp_path):
    with pytest.raises(ValueError, match=r"input_shapes do not fit model .*'image'"):
        export_tflite(open_model(), tmp_path / "model.tflite", input_shapes=shapes)


def test_a_part_is_not_judged_by_the_whole_models_budget(tmp_path):
    numbers = keras.Input((6,), dtype="int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(400, 4, name="table")(numbers))
    model = quantize_model(keras.Model(numbers, keras.layers.Dense(3)(x)), (2, 8), pin=None)
    model.compile("sgd", "mse", jit_compile=False)

    def narrow_table(measured):
        return {one.path: [float("table" not in one.path), 0.0] for one in measured}

    callback = BMPQCallback("12x", sensitivity=narrow_table, verbose=0)
    data = np.arange(48).reshape(8, 6), np.zeros((8, 3), "float32")
    model.fit(*data, epochs=2, verbose=0, callbacks=[callback])
    assert [state.bits for state in model_kernels(model)] == [2, 8]
    assert export_tflite(model, tmp_path / "part.tflite", inputs="table").parity.holds
    with pytest.raises(ValueError, match="over its budget"):
        export_tflite(model, tmp_path / "refused.tflite", inputs="table", budget="12x")


def test_a_part_of_a_model_of_16_bit_floats_takes_32(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((6,))
        hidden = keras.layers.Dense(5, name="hidden")(inputs)
        model = with_widths(keras.Model(inputs, keras.layers.Dense(3)(hidden)), [4])
    finally:
        keras.config.set_dtype_policy("float32")
    data = np.random.default_rng(0).standard_normal((32, 6)).astype("float32")
    _, file = export(model, tmp_path / "model.tflite", "size", data, inputs="hidden")
    graph = file.subgraphs[0]
    assert [graph.tensors[index].type for index in graph.inputs] == [flatbuffer.FLOAT32]
