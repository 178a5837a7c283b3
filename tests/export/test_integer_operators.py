"""Operators of integer files: lookup tables, products in place of others, and what is carried."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_optimize_for import export, trained_for_a_moment
from trained_models import with_widths

from bmpq_research import tflite_builder
from bmpq_tf import ConversionError, ExportError, export_tflite, quantize_model
from bmpq_tf._compat.litert import schema
from bmpq_tf.export.converter import convert, rewrites
from bmpq_tf.export.integer import lookup_tables
from bmpq_tf.export.integer.ranges import integer_grid
from bmpq_tf.export.integer.rewrites import rewrite
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.interpreter import TFLiteModel
from bmpq_tf.layers import QuantIdentity

LAYERS, OPS = keras.layers, keras.ops
BUILTIN = schema.BuiltinOperator
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.standard_normal((48, 6, 6, 3)).astype("float32")


def operators(file):
    return [
        flatbuffer.schema_name(flatbuffer.builtin_of(file, one))
        for one in file.subgraphs[0].operators
    ]


def apart(path, model, data):
    """Relative root mean squares of the outputs' differences."""
    answers, expected = TFLiteModel(path.read_bytes())([data]), model(data)
    return [
        float(np.sqrt(np.mean((one - other) ** 2) / np.mean(np.square(other))))
        for one, other in zip(answers, map(np.asarray, keras.tree.flatten(expected)), strict=True)
    ]


FUNCTIONS = {
    "softplus": keras.activations.softplus,
    "mish": keras.activations.mish,
    "selu": keras.activations.selu,
    "squareplus": keras.activations.squareplus,
    "tanh_shrink of little": lambda x: keras.activations.tanh_shrink(0.1 * x),
    "hard_shrink": keras.activations.hard_shrink,
    "exact gelu of a sum": lambda x: keras.activations.gelu(x, approximate=False) + OPS.erf(x),
    "sine": OPS.sin,
    "cube": lambda x: x**3,
    "chosen": lambda x: OPS.where(x > 0.1, x, 0.3 * x),
    "exp": OPS.exp,
    "abs": OPS.absolute,
    "square": OPS.square,
    "negative": OPS.negative,
    "flipped": lambda x: OPS.flip(x, axis=1),
    "log_softmax": keras.activations.log_softmax,
}


@pytest.mark.parametrize("mode", ["integer", "micro"])
def test_functions_of_one_tensor_are_right_to_a_step(mode, tmp_path):
    inputs = keras.Input((6, 6, 3))
    x = LAYERS.Conv2D(4, 3)(inputs)
    outputs = [
        LAYERS.Lambda(function, output_shape=(4, 4, 4))(x) for function in FUNCTIONS.values()
    ]
    model = with_widths(keras.Model(inputs, outputs), [8])
    if mode == "micro":
        pytest.importorskip("tflite_micro")
    options = {"optimize_for": mode, "io_dtype": "int8", "tolerance": 0.1}
    export_tflite(model, tmp_path / "m.tflite", calibrate_with=IMAGES, **options)
    far = dict(zip(FUNCTIONS, apart(tmp_path / "m.tflite", model, IMAGES), strict=True))
    # The most where a function jumps, and a rounded value lies on the other side.
    assert max(far.values()) < 0.05, far


NORMALISATIONS = {
    "RMSNormalization": lambda: LAYERS.RMSNormalization(),
    "GroupNormalization": lambda: LAYERS.GroupNormalization(2),
    "instance": lambda: LAYERS.GroupNormalization(-1),
    "LayerNormalization": lambda: LAYERS.LayerNormalization((1, 2, 3)),
    "UnitNormalization": lambda: LAYERS.UnitNormalization(),
    "PReLU": lambda: LAYERS.PReLU("uniform", shared_axes=[1, 2]),
    "bounded ReLU": lambda: LAYERS.ReLU(0.7),
    "ELU": lambda: LAYERS.ELU(0.5),
    "Softmax over two axes": lambda: LAYERS.Softmax((1, 2)),
}


@pytest.mark.filterwarnings("ignore::bmpq_tf.SkippedLayersWarning")
def test_normalisations_and_activation_layers_are_integer(tmp_path):
    inputs = keras.Input((6, 6, 3))
    x = LAYERS.Conv2D(4, 3)(inputs)
    outputs = [make()(x) for make in NORMALISATIONS.values()]
    model = quantize_model(keras.Model(inputs, outputs), (8,), pin=None)
    export(model, tmp_path / "m.tflite", "integer", IMAGES, tolerance=0.1)
    far = dict(zip(NORMALISATIONS, apart(tmp_path / "m.tflite", model, IMAGES), strict=True))
    assert max(far.values()) < 0.05, far


def test_short_vectors_keep_their_direction(tmp_path):
    """The sum of their squares would round to zero beside that of long ones."""
    inputs = keras.Input((5, 6))
    x = LAYERS.Dense(8)(inputs)
    # Only the last axis is the operator's.
    outputs = [LAYERS.UnitNormalization(axis)(x) for axis in (-1, 2, 1)]
    model = with_widths(keras.Model(inputs, outputs), [8])
    data = RANDOM.standard_normal((64, 5, 6)) * RANDOM.uniform(0.05, 1, (64, 5, 1))
    data = data.astype("float32")
    _, file = export(model, tmp_path / "m.tflite", "integer", data, tolerance=10)
    assert operators(file).count("L2_NORMALIZATION") == 2
    near = apart(tmp_path / "m.tflite", model, data)
    # Written with a reciprocal root it was 0.21.
    assert max(near[:2]) < 0.07


def test_attention_over_several_axes_with_masks_and_joined_branches_is_integer(tmp_path):
    inputs = keras.Input((4, 6, 3))
    x, y = LAYERS.Dense(8)(inputs), LAYERS.Dense(8)(inputs)
    rows, others = LAYERS.Reshape((24, 8))(x), LAYERS.Reshape((24, 8))(y)
    outputs = [
        LAYERS.MultiHeadAttention(2, 4)(x, y),
        LAYERS.MultiHeadAttention(2, 4)(rows, others, use_causal_mask=True),
        LAYERS.Attention()([rows, others], use_causal_mask=True),
        LAYERS.Dot((2, 2), normalize=True)([rows, others]),
        LAYERS.Minimum()([x, y]),
        LAYERS.Lambda(lambda both: both[0] / (2.0 + OPS.absolute(both[1])))([x, y]),
    ]
    model = with_widths(keras.Model(inputs, outputs), [8])
    data = RANDOM.standard_normal((32, 4, 6, 3)).astype("float32")
    export(model, tmp_path / "m.tflite", "integer", data, tolerance=0.1)
    assert max(apart(tmp_path / "m.tflite", model, data)) < 0.08


def unary_file(*steps):
    """A float model of operators one after the other on a vector."""
    file = tflite_builder.Builder()
    tensors = [file.tensor("t0", (1, 5), flatbuffer.FLOAT32)]
    for number, (name, more) in enumerate(steps, 1):
        tensors.append(file.tensor(f"t{number}", (1, 5), flatbuffer.FLOAT32))
        constants = [
            file.tensor(f"c{number}", (), flatbuffer.FLOAT32, np.float32(value)) for value in more
        ]
        options = name.title() if hasattr(schema, f"{name.title()}OptionsT") else ""
        file.operator(
            getattr(BUILTIN, name), [tensors[-2], *constants], [tensors[-1]], (options, {})
        )
    return flatbuffer.parse(file.content(tensors[:1], tensors[-1:]))


def test_what_has_a_right_kernel_and_stands_alone_needs_no_table():
    for steps, found in (
        ([("EXP", ())], ["EXP"]),
        ([("SIN", ())], ["CUSTOM"]),
        ([("EXP", ()), ("ADD", (1.0,)), ("LOG", ())], ["CUSTOM"]),
        ([("TANH", ()), ("MUL", (2.0,))], ["TANH", "MUL"]),
    ):
        assert operators(lookup_tables.folded(unary_file(*steps))[0]) == found


def test_a_table_holds_every_answer_rounded_once():
    _, functions = lookup_tables.folded(unary_file(("EXP", ()), ("ADD", (1.0,)), ("LOG", ())))
    source, result = integer_grid((-5.0, 6.0), 8), integer_grid((0.0, 6.1), 8)
    values = (np.arange(-128, 128) - source[1]) * np.float64(source[0])
    expected = np.round(np.logaddexp(values, 0) / result[0]) + result[1]
    np.testing.assert_array_equal(
        lookup_tables.table(functions["t3"], source, result), np.clip(expected, -128, 127)
    )


def test_a_function_of_two_tensors_is_no_table():
    file = tflite_builder.Builder()
    ends = [file.tensor(name, (1, 5), flatbuffer.FLOAT32) for name in "abq"]
    file.operator(BUILTIN.DIV, ends[:2], ends[2:], ("Div", {}))
    model = flatbuffer.parse(file.content(ends[:2], ends[2:]))
    assert operators(lookup_tables.folded(model)[0]) == ["DIV"]
    rewrite(model)
    assert operators(model) == ["DIV", "MUL"]
    given = [np.float32([[1, 2, 3, 4, 5]]), np.float32([[2, 4, -5, 8, 0.5]])]
    content = flatbuffer.serialised(model)
    np.testing.assert_allclose(TFLiteModel(content)(given)[0], given[0] / given[1], rtol=1e-6)


def test_an_output_that_an_operator_reads_too_is_the_one_that_the_signature_names(tmp_path):
    inputs = keras.Input((5,))
    x = LAYERS.Dense(8)(inputs)
    model = with_widths(keras.Model(inputs, [x, LAYERS.UnitNormalization()(x)]), [8])
    data = RANDOM.standard_normal((32, 5)).astype("float32")
    _, file = export(model, tmp_path / "m.tflite", "integer", data, tolerance=0.2)
    (signature,) = file.signatureDefs
    named = [int(entry.tensorIndex) for entry in signature.outputs]
    assert named == list(map(int, file.subgraphs[0].outputs))
    assert {file.subgraphs[0].tensors[index].type for index in named} == {flatbuffer.FLOAT32}


def test_answers_that_are_integers_or_truth_values_are_compared(tmp_path):
    inputs = keras.Input((5,))
    shares = LAYERS.Dense(4, activation="sigmoid")(inputs)
    model = with_widths(keras.Model(inputs, keras.ops.cast(shares > 0.5, "int32")), [8])
    data = RANDOM.standard_normal((32, 5)).astype("float32")
    report, _ = export(model, tmp_path / "m.tflite", "integer", data)
    assert report.parity.examples == 32
    assert report.parity.labels


@pytest.mark.parametrize(
    ("function", "name"), [(tf.math.erfc, "SUB"), (lambda x: OPS.erf(x) * x, "MUL")]
)
def test_error_functions_outside_of_a_gelu_convert(function, name):
    inputs = keras.Input((40,))
    model = keras.Model(inputs, LAYERS.Lambda(function, output_shape=(40,))(inputs))
    file = convert.to_float_model(model)
    assert operators(file)[-1] == name
    data = np.linspace(-6, 6, 40, dtype=np.float32)[None]
    answers = TFLiteModel(flatbuffer.serialised(file))([data])[0]
    np.testing.assert_allclose(answers, model(data), atol=3e-6)


def test_the_error_function_is_close_everywhere():
    values = np.linspace(-5, 5, 20001, dtype=np.float32)
    expected = [math.erf(value) for value in values.tolist()]
    np.testing.assert_allclose(rewrites._erf(tf.constant(values)), expected, atol=1e-6)


def test_what_has_no_builtin_is_named_beside_an_error_function():
    inputs = keras.Input((4,))
    x = LAYERS.Lambda(lambda x: tf.math.erfinv(OPS.erf(x)), output_shape=(4,), name="odd")(inputs)
    model = keras.Model(inputs, x)
    with pytest.raises(
        ConversionError, match=r"no builtin for tf\.Erfinv of layer 'odd'"
    ) as raised:
        convert.to_float_model(model)
    assert "tf.Erf " not in str(raised.value)


@pytest.mark.parametrize("mode", ["size", "integer"])
def test_a_rounded_relu_that_lets_nothing_through_is_a_file(mode, tmp_path):
    inputs = keras.Input((6, 6, 3))
    x = LAYERS.Conv2D(4, 3)(inputs)
    x = LAYERS.Add()([LAYERS.ReLU(max_value=0.0)(x), LAYERS.ReLU()(x)])
    model = trained_for_a_moment(
        keras.Model(inputs, LAYERS.GlobalMaxPooling2D()(x)), IMAGES, activation_bits=8
    )
    assert export(model, tmp_path / "m.tflite", mode, IMAGES)[0].parity.rms < 0.05


def test_a_table_between_roundings_needs_no_data(tmp_path):
    inputs = keras.Input((6,))
    x = LAYERS.Dense(5)(QuantIdentity(bits=8)(inputs))
    x = QuantIdentity(bits=8)(LAYERS.Activation("mish")(QuantIdentity(bits=8)(x)))
    x = QuantIdentity(bits=8)(LAYERS.Dense(3)(x))
    data = RANDOM.standard_normal((40, 6)).astype("float32")
    model = trained_for_a_moment(keras.Model(inputs, x), data)
    options = {"optimize_for": "integer", "verify_with": data}
    assert export_tflite(model, tmp_path / "m.tflite", **options).parity.rms < 0.03


@pytest.mark.parametrize("kind", ["size", "latency", "integer"])
@pytest.mark.parametrize("find", ["argmax", "argmin"])
def test_a_model_may_end_in_the_place_of_an_extreme(kind, find, tmp_path):
    inputs = keras.Input((6, 6, 3))
    x = LAYERS.Conv2D(4, 1)(LAYERS.Conv2D(6, 3, activation="relu")(inputs))
    ends = getattr(OPS, find)(x, axis=-1), getattr(OPS, find)(x, axis=1, keepdims=True)
    model = with_widths(keras.Model(inputs, list(ends)), [4, 8])
    path = tmp_path / "model.tflite"
    data = {"calibrate_with": IMAGES} if kind == "integer" else {}
    report = export_tflite(model, path, optimize_for=kind, verify_with=IMAGES, **data)
    assert report.parity.agreement >= (1.0 if kind == "size" else 0.95)
    assert "labels equal to Keras's on" in str(report.parity)
    answers = TFLiteModel(path.read_bytes())([IMAGES])
    assert [answer.shape for answer in answers] == [(48, 4, 4), (48, 1, 4, 4)]
    assert operators(flatbuffer.parse(path.read_bytes())).count(f"ARG_{find[3:].upper()}") == 2


def test_the_place_of_an_extreme_in_all_values_is_kerass():
    values = np.random.default_rng(1).standard_normal((2, 3, 4)).astype("float32")
    with rewrites.plain_extremes():
        plain = [np.asarray(OPS.argmax(values, keepdims=keep)) for keep in (False, True)]
    for ours, keep in zip(plain, (False, True), strict=True):
        np.testing.assert_array_equal(ours, OPS.argmax(values, keepdims=keep))


def test_only_the_operators_that_are_in_the_way_are_named(tmp_path):
    inputs = keras.Input((6,))
    x = LAYERS.Lambda(lambda x: OPS.cumsum(x, axis=1), output_shape=(5,), name="odd")(
        LAYERS.Dense(5)(inputs)
    )
    x = LAYERS.Dense(3)(LAYERS.Activation("softplus")(LAYERS.LeakyReLU()(x)))
    data = RANDOM.standard_normal((40, 6)).astype("float32")
    model = with_widths(keras.Model(inputs, x), [8])
    with pytest.raises(ExportError, match=r"file: CUMSUM of layer 'odd' \(Lambda\) would compute"):
        export(model, tmp_path / "m.tflite", "integer", data)
