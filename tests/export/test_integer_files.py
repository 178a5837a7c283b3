"""Integer-only files: what they are made of, what calibrates them, and what is refused."""

import re

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from conftest import small_data, small_model
from test_optimize_for import export, model_of_all_widths, trained_for_a_moment
from trained_models import with_widths

from bmpq_research import tflite_builder
from bmpq_tf import ConstantColumnsWarning, ExportError, export_tflite
from bmpq_tf.export import stages
from bmpq_tf.export.integer import static, unsupported
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.interpreter import TFLiteModel
from bmpq_tf.export.verification import comparison, constant_columns
from bmpq_tf.model.kernels import model_kernels

IMAGES, _ = small_data()


@pytest.fixture(scope="module")
def model():
    return model_of_all_widths()


@pytest.mark.parametrize("io_dtype", ["float32", "int8"])
def test_an_integer_file_has_no_float_but_its_inputs_and_outputs(io_dtype, model, tmp_path):
    _, file = export(model, tmp_path / "model.tflite", "integer", IMAGES, io_dtype=io_dtype)
    subgraph = file.subgraphs[0]
    floats = {
        index for index, tensor in enumerate(subgraph.tensors) if tensor.type == flatbuffer.FLOAT32
    }
    ends = {int(index) for index in [*subgraph.inputs, *subgraph.outputs]}
    assert floats == (ends if io_dtype == "float32" else set())
    assert file.signatureDefs[0].inputs[0].tensorIndex == subgraph.inputs[0]
    assert file.signatureDefs[0].outputs[0].tensorIndex == subgraph.outputs[0]


def test_a_lookup_and_what_it_gives_lie_on_one_grid(tmp_path):
    tokens = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(20, 4, name="words")(tokens)
    model = with_widths(
        keras.Model(
            tokens, keras.layers.Dense(3, name="head")(keras.layers.GlobalAveragePooling1D()(x))
        ),
        [8],
    )
    table = next(state for state in model_kernels(model) if state.layer.name == "words")
    table.variable.assign(np.asarray(table.variable) * [0.1, 1.0, 3.0, 10.0])
    table.quantizer.initialise_scale(table.variable)
    data = np.random.default_rng(0).integers(0, 20, (32, 5)).astype("int32")
    report, _ = export(model, tmp_path / "model.tflite", "integer", data)
    assert report.parity.rms < 0.05
    assert [layer.note for layer in report.layers if "words" in layer.name] == [
        "in int8 on one grid, since GATHER copies integers: rounded as its output is, not exactly "
        "as trained"
    ]


def test_operators_that_only_move_values_stay_integer(tmp_path):
    """A dilated causal Conv1D, LeakyReLU and Flatten.

    EXPAND_DIMS, SPACE_TO_BATCH_ND, LEAKY_RELU and SHAPE.
    """
    inputs = keras.Input((12, 3))
    x = keras.layers.Conv1D(6, 3, padding="causal", dilation_rate=2)(inputs)
    x = keras.layers.Flatten()(keras.layers.LeakyReLU()(x))
    model = with_widths(keras.Model(inputs, keras.layers.Dense(3)(x)), [4, 2])
    data = np.random.default_rng(0).standard_normal((40, 12, 3)).astype("float32")
    report, _ = export(model, tmp_path / "model.tflite", "integer", data)
    assert report.parity.rms < 0.05


def test_an_operator_without_an_integer_kernel_is_named(tmp_path):
    inputs = keras.Input((6,))
    # Converted, 'odd' is in a scope called odd_1; and the last one is called as the output is.
    x = keras.layers.Activation("sparsemax", name="odd")(keras.layers.Dense(5)(inputs))
    x = keras.layers.Dense(3)(
        keras.layers.Activation("relu", name="odd_1")(keras.layers.Dense(4)(x))
    )
    model = with_widths(
        keras.Model(inputs, keras.layers.Activation("sparsemax", name="end")(x)), [4]
    )
    data = np.random.default_rng(0).standard_normal((20, 6)).astype("float32")
    with pytest.raises(
        ExportError, match=r"cannot be an integer-only file: .*would compute with floats"
    ) as raised:
        export(model, tmp_path / "model.tflite", "integer", data)
    assert set(re.findall(r"of layer '(\w+)' \(Activation\)", str(raised.value))) == {"odd", "end"}
    assert "QUANTIZE" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", [np.asarray, lambda images: iter([images[:20], images[20:]])])
def test_what_calibrates_verifies_too_since_random_inputs_lie_outside_of_its_ranges(form, tmp_path):
    bright = 200.0 + IMAGES
    model = with_widths(small_model(), [8])
    report = export_tflite(
        model, tmp_path / "model.tflite", optimize_for="integer", calibrate_with=form(bright)
    )
    assert (report.parity.generated, report.parity.examples) == (False, len(IMAGES))
    random = comparison.compare(model, (tmp_path / "model.tflite").read_bytes(), None, "integer")
    assert "The inputs were random: better give" in random.problem


def test_equal_biases_of_two_layers_get_their_own_grids(tmp_path):
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(
        4, 3, bias_initializer=keras.initializers.Constant(0.5), activation="relu"
    )(inputs)
    x = keras.layers.Conv2D(4, 3, bias_initializer=keras.initializers.Constant(0.5))(
        keras.layers.Rescaling(10)(x)
    )
    model = with_widths(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)), [4])
    report, _ = export(model, tmp_path / "model.tflite", "integer", IMAGES)
    assert report.parity.rms < 0.05


def test_a_tolerance_of_ones_own_stands_for_top_1_too_where_that_means_nothing(tmp_path):
    inputs = keras.Input((8,))
    kernel = keras.initializers.RandomNormal(stddev=0.002, seed=0)
    head = keras.layers.Dense(
        24, kernel_initializer=kernel, bias_initializer=keras.initializers.Constant(20.0)
    )
    model = with_widths(keras.Model(inputs, head(inputs)), [8])
    data = np.random.default_rng(0).standard_normal((50, 8)).astype("float32")
    with pytest.raises(
        ExportError, match=r"top-1 .*If top-1 means nothing for these outputs, say with tolerance="
    ):
        export(model, tmp_path / "model.tflite", "integer", data)
    # Close enough is said to be so; that nothing varies in the file any more is told all the same.
    with pytest.warns(ConstantColumnsWarning, match=r"and 1\d more"):
        assert (
            export(model, tmp_path / "model.tflite", "integer", data, tolerance=0.01)[0].parity.rms
            < 0.01
        )


@pytest.mark.parametrize("io_dtype", ["float32", "int8"])
def test_an_output_that_the_last_operator_reads_too_stays_integer(io_dtype, tmp_path):
    inputs = keras.Input((8,))
    embedding = keras.layers.Dense(6, activation="relu", name="embedding")(inputs)
    model = with_widths(
        keras.Model(inputs, [keras.layers.Dense(3, name="logits")(embedding), embedding]), [8]
    )
    data = np.random.default_rng(0).standard_normal((32, 8)).astype("float32")
    assert (
        export(model, tmp_path / "model.tflite", "integer", data, io_dtype=io_dtype)[0].parity.rms
        < 0.05
    )


def test_static_lists_batch_matmul_with_several_scales():
    file = tflite_builder.Builder()
    grid = (np.float32([0.1]), np.int64([0]), 0)
    fed = file.tensor("input", (1, 2, 3), flatbuffer.INT8, grid=grid)
    kernel = file.tensor(
        "w",
        (1, 3, 2),
        flatbuffer.INT8,
        np.ones((1, 3, 2), np.int8),
        grid=(np.float32([0.1, 0.2]), np.int64([0, 0]), 2),
    )
    result = file.tensor("product", (1, 2, 2), flatbuffer.INT8, grid=grid)
    file.operator(schema.BuiltinOperator.BATCH_MATMUL, [fed, kernel], [result], ("BatchMatMul", {}))
    assert unsupported.find(flatbuffer.parse(file.content([fed], [result]))) == [
        ("BATCH_MATMUL", "product")
    ]


def test_whole_numbers_serve_where_the_model_takes_floats(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 6, 6, 2)).astype("uint8")
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, name="conv")(keras.layers.Rescaling(1 / 255)(inputs))
    model = trained_for_a_moment(
        keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)), pixels
    )
    report, _ = export(model, tmp_path / "model.tflite", "integer", pixels, io_dtype="int8")
    assert report.parity.rms < 0.1
    runtime = TFLiteModel((tmp_path / "model.tflite").read_bytes())
    np.testing.assert_array_equal(runtime([pixels])[0], runtime([pixels.astype("float32")])[0])


def test_a_kernel_that_is_lost_in_conversion_leaves_no_integer_file(model, tmp_path, monkeypatch):
    honest = stages.find
    monkeypatch.setattr(stages, "find", lambda *given: honest(*given)[1:])
    with pytest.raises(ExportError, match="would not be the trained ones"):
        export(model, tmp_path / "model.tflite", "integer", IMAGES)
    assert not list(tmp_path.iterdir())


def test_an_output_that_stays_float_leaves_no_int8_file(model, tmp_path, monkeypatch):
    honest = static.quantize
    monkeypatch.setattr(
        static, "quantize", lambda *given, **more: honest(*given[:3], "float32", **more)
    )
    with pytest.raises(ExportError, match=r"would stay float: .*Take io_dtype=\"float32\""):
        export(model, tmp_path / "model.tflite", "integer", IMAGES, io_dtype="int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("softmax", [False, True])
def test_columns_that_are_too_small_for_an_outputs_scale_are_warned_of(softmax, tmp_path):
    inputs = keras.Input((4,))
    x = keras.layers.Dense(
        3, kernel_initializer=keras.initializers.RandomNormal(seed=1), name="head"
    )(inputs)
    if softmax:
        # The last class is rare, and the rows sum to one: nothing is lost.
        outputs = keras.layers.Softmax()(keras.layers.Rescaling(1.0, offset=[0.0, 0.0, -12.0])(x))
    else:
        outputs = keras.layers.Rescaling([1e3, 1.0, 1e3], name="units")(x)
    model = with_widths(keras.Model(inputs, outputs), [8])
    data = np.random.default_rng(0).standard_normal((40, 4)).astype("float32")
    if softmax:
        assert export(model, tmp_path / "model.tflite", "integer", data)[0].parity.caution == ""
        return
    message = (
        r"40 examples.*output_0 of layer 'units' \(Rescaling\): column 1 \(0\.\d+\)\. Give "
        r"these columns an output of their own"
    )
    with pytest.warns(ConstantColumnsWarning, match=message):
        report, _ = export(model, tmp_path / "model.tflite", "integer", data)
    (found,) = report.parity.constant
    assert found.columns == (1,)
    np.testing.assert_allclose(found.varies, np.ptp(np.asarray(model(data))[:, 1]), rtol=1e-4)
    assert export(model, tmp_path / "other.tflite", "latency", data)[0].parity.constant == ()


def test_the_first_few_of_many_constant_columns_are_named():
    inputs = keras.Input((2, 8))
    ranges = constant_columns.ColumnRanges(
        keras.Model(inputs, keras.layers.ReLU(name="end")(inputs)), 0
    )
    expected = np.random.default_rng(0).uniform(0, 1, (6, 2, 8)).astype("float32")
    for start in (0, 3):
        ranges.add(
            expected[start : start + 3],
            np.where(np.arange(8) < 7, 0.5, expected[start : start + 3]),
        )
    assert ranges.constant().columns == tuple(range(7))
    text = constant_columns.in_words([ranges.constant()], 6)
    assert re.search(
        r"layer 'end' \(ReLU\): column 0 \([\d.]+\), .*, 4 \([\d.]+\) and 2 more\. Give", text
    )
    assert constant_columns.in_words([], 6) == ""
