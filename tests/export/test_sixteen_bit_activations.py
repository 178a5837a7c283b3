"""Integer files with activations of 16 bits: LiteRT's 16x8."""

import keras
import numpy as np
import pytest
from test_integer_inputs import network, pixels
from test_optimize_for import export, trained_for_a_moment
from trained_models import with_widths

from bmpq_tf import (
    ExportError,
    export_tflite,
    kernel_table,
    quantize_model,
    run_tflite,
    write_firmware,
)
from bmpq_tf._compat.litert import schema
from bmpq_tf.export.device_plan import device_plan
from bmpq_tf.export.integer import biases
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.layers import QuantIdentity, QuantReLU

layers = keras.layers
BUILTIN = schema.BuiltinOperator
RANDOM = np.random.default_rng(0)


def audio() -> keras.Model:
    sound = keras.Input((32, 4))
    x = layers.Conv1D(12, 5, activation="relu")(sound)
    x = layers.Conv1D(12, 3, padding="causal", dilation_rate=2, activation="relu")(x)
    return keras.Model(sound, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def residual() -> keras.Model:
    image = keras.Input((12, 12, 4))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, use_bias=False)(image))
    x = layers.DepthwiseConv2D(3, padding="same")(layers.ReLU(6.0)(x))
    x = layers.LeakyReLU()(layers.Add()([x, layers.Conv2D(8, 1)(x)]))
    x = layers.Conv2DTranspose(6, 3, strides=2)(layers.MaxPooling2D(2)(x))
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def tables() -> keras.Model:
    given = keras.Input((16,))
    x = layers.Dense(24, activation="sigmoid")(given)
    x = layers.Multiply()([layers.Dense(24, activation="tanh")(x), x])
    return keras.Model(given, layers.Dense(3, activation="softmax")(x))


def recurrent() -> keras.Model:
    steps = keras.Input((12, 5))
    x = layers.GRU(6, return_sequences=True)(steps)
    return keras.Model(steps, layers.Dense(3)(layers.Bidirectional(layers.LSTM(4))(x)))


def inputs_of(model: keras.Model) -> np.ndarray:
    return RANDOM.standard_normal((48, *model.input_shape[1:])).astype("float32")


def types(file) -> dict[str, set]:
    """The types of what is computed, of the first inputs of kernels' operators, and of biases."""
    subgraph = file.subgraphs[0]
    ends = {int(index) for index in [*subgraph.inputs, *subgraph.outputs]}
    computed = {int(index) for one in subgraph.operators for index in one.outputs} - ends
    found = {"computed": {subgraph.tensors[index].type for index in computed}, "biases": set()}
    found["zero points"] = {
        int(zero)
        for index in computed
        if subgraph.tensors[index].type == flatbuffer.INT16
        for zero in subgraph.tensors[index].quantization.zeroPoint
    }
    for operator in subgraph.operators:
        place = biases.OPERAND.get(flatbuffer.builtin_of(file, operator))
        if place is not None and place < len(operator.inputs) and operator.inputs[place] >= 0:
            found["biases"].add(subgraph.tensors[int(operator.inputs[place])].type)
    return found


@pytest.mark.parametrize(
    "build",
    [
        audio,
        *(pytest.param(build, marks=pytest.mark.slow) for build in (residual, tables, recurrent)),
    ],
)
def test_a_file_of_16_bits_is_ten_times_as_close_as_one_of_8(build, tmp_path):
    float_model = build()
    data = inputs_of(float_model)
    rounded = trained_for_a_moment(float_model, data, activation_bits=16)
    report, file = export(rounded, tmp_path / "rounded.tflite", "integer", data)
    assert report.parity.rms < 2e-3
    found = types(file)
    whole = {flatbuffer.INT16, flatbuffer.INT32}  # shapes are of int32
    assert found["computed"] <= whole
    assert found["zero points"] == {0}
    assert found["biases"] == {flatbuffer.INT64}
    plain = trained_for_a_moment(build(), data)
    wide, narrow = (
        export(plain, tmp_path / f"{bits}.tflite", "integer", data, activation_bits=bits)[0]
        for bits in (16, 8)
    )
    assert 10 * wide.parity.rms < narrow.parity.rms


def test_trained_ranges_need_no_data_and_ends_may_be_int16(tmp_path):
    data = inputs_of(residual())
    image = keras.Input((12, 12, 4))
    x = layers.Conv2D(8, 3, activation="relu6")(image)
    x = QuantIdentity(bits=16)(layers.Conv2D(3, 10)(QuantReLU(bits=16)(x)))
    model = trained_for_a_moment(keras.Model(image, layers.Flatten()(x)), data, activation_bits=16)
    path = tmp_path / "model.tflite"
    options = {"optimize_for": "integer", "io_dtype": "int16"}
    report = export_tflite(model, path, verify_with=data, **options)
    file = flatbuffer.parse(path.read_bytes())
    ends = [*file.subgraphs[0].inputs, *file.subgraphs[0].outputs]
    assert {file.subgraphs[0].tensors[int(index)].type for index in ends} == {flatbuffer.INT16}
    assert report.parity.rms < 2e-3


@pytest.mark.parametrize("build", [audio, tables])
@pytest.mark.slow
def test_a_microcontroller_takes_them_too(build, tmp_path):
    pytest.importorskip("tflite_micro")
    data = inputs_of(build())
    model = quantize_model(build(), (3,), pin=None, activation_bits=16)
    model.compile("adam", "mse", jit_compile=False)
    model.fit(data, np.zeros((len(data), 3)), verbose=0)
    path = tmp_path / "model.tflite"
    report = export_tflite(model, path, optimize_for="micro", calibrate_with=data)
    assert report.parity.rms < 2e-3
    assert report.micro.steps <= 8
    write_firmware(path, tmp_path / "firmware", data)
    assert (
        "extern const int16_t bmpq_golden_input_0"
        in (tmp_path / "firmware" / "golden.h").read_text()
    )


def test_a_microcontroller_takes_kernels_that_are_read_as_activations(tmp_path):
    pytest.importorskip("tflite_micro")
    given = keras.Input((6, 8))
    x = layers.EinsumDense("bsd,ds->bsd", (6, 8), name="each")(layers.Dense(8)(given))
    float_model = keras.Model(given, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    data = inputs_of(float_model)
    model = trained_for_a_moment(float_model, data, activation_bits=16)
    report = export_tflite(model, tmp_path / "m.tflite", optimize_for="micro", calibrate_with=data)
    assert {layer.name: layer.stored_bits for layer in report.layers}["each/kernel"] == 16
    plan = device_plan(model)
    assert "each/kernel" not in plan.forms
    widths = {row.path: row.bits for row in kernel_table(model)}
    assert 0.95 * plan.flash_bytes(widths) < report.tflite_bytes <= plan.flash_bytes(widths)


def test_sums_inside_a_loop_take_any_scale_too(tmp_path):
    data = inputs_of(recurrent())
    model = quantize_model(recurrent())
    _, file = export(model, tmp_path / "m.tflite", "integer", data, activation_bits=16)
    sums = [
        operator.builtinOptions.potScaleInt16
        for subgraph in file.subgraphs[1:]
        for operator in subgraph.operators
        if flatbuffer.builtin_of(file, operator) in (BUILTIN.ADD, BUILTIN.SUB)
        and subgraph.tensors[int(operator.outputs[0])].type == flatbuffer.INT16
    ]
    assert sums
    assert not any(sums)


@pytest.mark.parametrize("mode", ["integer", "micro"])
@pytest.mark.parametrize("dtype", ["uint8", "int32"])
@pytest.mark.slow
def test_integers_at_the_door_become_16_bits(dtype, mode, tmp_path):
    """Their Rescaling adds where all scales are nearly powers of two, which LiteRT trips over."""
    pytest.importorskip("tflite_micro")
    data = pixels(dtype)
    model = trained_for_a_moment(network(dtype), data, activation_bits=16)
    for io_dtype in ("float32", "int16"):
        path = tmp_path / f"{io_dtype}.tflite"
        report = export_tflite(
            model, path, optimize_for=mode, calibrate_with=data, io_dtype=io_dtype
        )
        assert report.parity.rms < 2e-3
        file = flatbuffer.parse(path.read_bytes())
        first = file.subgraphs[0].tensors[int(file.subgraphs[0].inputs[0])].type
        assert first == ({"uint8": 3, "int32": 2}[dtype] if io_dtype == "float32" else 7)


def test_a_table_that_is_looked_up_lies_in_int16(tmp_path):
    words = keras.Input((5,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(20, 4, name="words")(words))
    model = with_widths(keras.Model(words, layers.Dense(3)(x)), [8])
    data = RANDOM.integers(0, 20, (32, 5)).astype("int32")
    report, _ = export(model, tmp_path / "model.tflite", "integer", data, activation_bits=16)
    assert report.parity.rms < 1e-3
    (table,) = [layer for layer in report.layers if "words" in layer.name]
    assert table.stored_bits == 16
    assert "in int16 on one grid" in table.note


def test_a_bias_beyond_32_bits_is_held(tmp_path):
    image = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, use_bias=False)(image)
    x = layers.BatchNormalization(name="bn")(x)
    model = with_widths(keras.Model(image, layers.GlobalAveragePooling2D()(x)), [8])
    norm = model.get_layer("bn")
    norm.gamma.assign([1.0, 1e-5, 1.0, 1.0])
    norm.beta.assign([0.5, 7.0, -0.5, 0.2])
    data = inputs_of(model)
    report, file = export(model, tmp_path / "model.tflite", "integer", data, activation_bits=16)
    assert report.parity.rms < 1e-3
    values = [
        flatbuffer.constant(file, tensor)
        for tensor in file.subgraphs[0].tensors
        if tensor.type == flatbuffer.INT64
    ]
    assert max(np.abs(one).max() for one in values) > 2**31


@pytest.mark.parametrize(
    ("bits", "options", "words"),
    [
        (8, {"activation_bits": 16}, "Train it with activation_bits=16 or None"),
        (16, {"activation_bits": 8}, "16 bits or of 8 and less, not both"),
        (16, {"io_dtype": "int8"}, "inputs and outputs are float32 or int16"),
        (None, {"io_dtype": "int16"}, "inputs and outputs are float32 or int8 or uint8"),
        (None, {"activation_bits": 4}, "activation_bits= is 8 or 16"),
        (None, {"activation_bits": 16, "optimize_for": "size"}, 'serves optimize_for="integer"'),
    ],
)
def test_widths_that_do_not_go_together_are_refused_before_any_work(bits, options, words, tmp_path):
    data = inputs_of(tables())
    model = quantize_model(tables(), activation_bits=bits)
    given = {"optimize_for": "integer", "calibrate_with": data, **options}
    if given["optimize_for"] == "size":
        del given["calibrate_with"]
    with pytest.raises(ValueError, match=words):
        export_tflite(model, tmp_path / "model.tflite", **given)


def test_an_operator_without_an_int16_kernel_is_named_and_how_to_do_without(tmp_path):
    given = keras.Input((6, 6, 4))
    x = layers.Activation("hard_swish", name="swish")(layers.Conv2D(4, 3)(given))
    model = with_widths(keras.Model(given, layers.GlobalAveragePooling2D()(x)), [8])
    data = inputs_of(model)
    export(model, tmp_path / "int8.tflite", "integer", data)
    with pytest.raises(ExportError, match=r"'swish' .*activation_bits=8"):
        export(model, tmp_path / "model.tflite", "integer", data, activation_bits=16)


def test_what_a_microcontroller_has_for_8_bits_alone_is_named(tmp_path):
    pytest.importorskip("tflite_micro")
    model = with_widths(recurrent(), [8])
    data = inputs_of(model)
    with pytest.raises(ExportError, match=r"no GATHER of layer 'gru.*activation_bits=8 or"):
        export_tflite(
            model,
            tmp_path / "model.tflite",
            optimize_for="micro",
            calibrate_with=data,
            activation_bits=16,
        )


def test_a_wrong_bias_is_caught_that_8_bits_would_hide(tmp_path, monkeypatch):
    float_model = audio()
    data = inputs_of(float_model)
    model = trained_for_a_moment(float_model, data)
    honest = biases.parameters

    def moved(content, *grids):
        return honest(content + 0.02 * np.abs(content).max() + 0.01, *grids)

    monkeypatch.setattr(biases, "parameters", moved)
    with pytest.raises(ExportError, match="is not the model's: "):
        export(model, tmp_path / "model.tflite", "integer", data, activation_bits=16)


@pytest.mark.slow
def test_a_regression_loses_at_8_bits_and_not_at_16(tmp_path):
    keras.utils.set_random_seed(0)
    given = RANDOM.uniform(-1, 1, (4000, 2)).astype("float32")
    wanted = np.sin(5 * given[:, :1]) * np.cos(4 * given[:, 1:])
    point = keras.Input((2,))
    x = layers.Dense(48, activation="relu")(layers.Dense(48, activation="relu")(point))
    model = quantize_model(keras.Model(point, layers.Dense(1)(x)), (8,), pin=None)
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    model.fit(given, wanted, epochs=20, batch_size=100, verbose=0)
    options = {"optimize_for": "integer", "calibrate_with": given, "verify_with": given[:400]}
    errors = {None: np.asarray(model(given)) - wanted}
    for bits in (8, 16):
        path = tmp_path / f"{bits}.tflite"
        export_tflite(model, path, activation_bits=bits, **options)
        errors[bits] = run_tflite(path, given)[0] - wanted
    squares = {bits: np.square(error).mean() for bits, error in errors.items()}
    assert squares[16] < 1.001 * squares[None]
    assert squares[8] > 1.004 * squares[None]


@pytest.mark.slow
def test_answers_are_floats_whatever_the_ends_are(tmp_path):
    data = inputs_of(tables())
    model = trained_for_a_moment(tables(), data)
    options = {"optimize_for": "integer", "calibrate_with": data, "activation_bits": 16}
    answers = []
    for io_dtype in ("float32", "int16"):
        export_tflite(model, tmp_path / f"{io_dtype}.tflite", io_dtype=io_dtype, **options)
        answers.append(run_tflite(tmp_path / f"{io_dtype}.tflite", data)[0])
    np.testing.assert_allclose(*answers, atol=1e-4)
