"""The three kinds of files: what the weights lie in, which operators read them, and that they
answer as Keras does.
"""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from conftest import small_data, small_model
from trained_models import trained, with_widths

from bmpq_tf import export_tflite, quantize_model
from bmpq_tf.export.kernels import levels, packing, storage
from bmpq_tf.export.kernels.match import KernelIntegers, Match
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.interpreter import TFLiteModel
from bmpq_tf.model.kernels import model_kernels

IMAGES, _ = small_data()
BUILTIN = schema.BuiltinOperator


def export(model, path, mode, data, **more):
    """Exports with what the mode needs; returns the report and the parsed file."""
    calibration_data = {"calibrate_with": data} if mode == "integer" else {}
    report = export_tflite(
        model, path, optimize_for=mode, verify_with=data, **calibration_data, **more
    )
    return report, flatbuffer.parse(path.read_bytes())


def readers(file):
    """For each operator that reads a packed constant.

    Its name, the constant's width and zero points.
    """
    subgraph = file.subgraphs[0]
    found = []
    for operator in subgraph.operators:
        for index in operator.inputs:
            tensor = subgraph.tensors[index]
            if (
                index >= 0
                and tensor.type in flatbuffer.PACKED_BITS
                and flatbuffer.constant(file, tensor) is not None
                and len(tensor.shape) > 1
            ):
                name = flatbuffer.schema_name(flatbuffer.builtin_of(file, operator))
                found.append(
                    (
                        name,
                        flatbuffer.PACKED_BITS[tensor.type],
                        sorted({int(zero) for zero in tensor.quantization.zeroPoint}),
                    )
                )
    return found


def set_lowest(model, name, value):
    """Puts a weight of every channel at the lowest level, or none."""
    state = next(state for state in model_kernels(model) if state.layer.name == name)
    low = -(2.0 ** (state.bits - 1))
    scale = np.asarray(state.quantizer.scale(state.variable.value))
    integers = np.maximum(np.asarray(state.quantizer.integers(state.variable.value)), low + 1)
    if value:
        integers[0] = low
    state.variable.assign(integers * scale)


def trained_for_a_moment(float_model, data, **more):
    model = quantize_model(float_model, (4,), pin=None, **more)
    model.compile("adam", "mse", jit_compile=False)
    model.fit(data, np.zeros((len(data), *model.output_shape[1:])), verbose=0)
    return model


def model_of_all_widths():
    keras.utils.set_random_seed(7)
    model = trained(with_widths(small_model(), [2, 4, 4, 8]))
    set_lowest(model, "hidden", False)
    return model


@pytest.fixture(scope="module")
def model():
    return model_of_all_widths()


@pytest.mark.parametrize("mode", ["latency", "integer"])
def test_the_integers_are_the_trained_ones_and_the_operators_read_them(mode, model, tmp_path):
    report, file = export(model, tmp_path / "model.tflite", mode, IMAGES)
    expected = {
        "latency": {"CONV_2D": 8, "DEQUANTIZE": 8, "FULLY_CONNECTED": 4},
        "integer": {"CONV_2D": 8, "DEPTHWISE_CONV_2D": 8, "FULLY_CONNECTED": 8},
    }
    found = {name: bits for name, bits, _ in reversed(readers(file))}
    assert found == expected[mode]
    assert all(zero == [0] for _, _, zero in readers(file))
    constants = [
        flatbuffer.constant(file, tensor)
        for tensor in file.subgraphs[0].tensors
        if tensor.type in flatbuffer.PACKED_BITS
    ]
    stored = [
        sorted(np.abs(values.astype(int)).reshape(-1)) for values in constants if values is not None
    ]
    for state in model_kernels(model):
        integers = np.asarray(state.quantizer.integers(state.variable.value)).astype(int)
        factor = levels.factor_in_int8(integers) if mode == "integer" else 1
        assert sorted(factor * np.abs(integers).reshape(-1)) in stored
    assert report.parity.rms < 0.05
    assert report.parity.agreement >= 0.9
    assert report.widened == {"latency": 2, "integer": 3}[mode]
    assert all(layer.note for layer in report.layers if layer.stored_bits > layer.bits)


@pytest.mark.parametrize(("lowest", "bits"), [(True, 8), (False, 4)])
def test_an_int4_dense_kernel_with_the_lowest_level_is_widened(lowest, bits, tmp_path):
    inputs = keras.Input((8,))
    model = with_widths(keras.Model(inputs, keras.layers.Dense(6, name="dense")(inputs)), [4])
    set_lowest(model, "dense", lowest)
    data = np.random.default_rng(0).standard_normal((40, 8)).astype("float32")
    _, file = export(model, tmp_path / "model.tflite", "latency", data)
    assert readers(file) == [("FULLY_CONNECTED", bits, [0])]


@pytest.mark.parametrize("mode", ["latency", "integer"])
def test_a_negative_gamma_widens_what_its_sign_does_not_fit(mode, tmp_path):
    """A -8 becomes 8 where gamma is negative.

    Kernels that compute with the integers insist on zero point 0.
    """
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 6, use_bias=False, name="stem")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="bn")(x))
    x = keras.layers.Conv2D(5, 1, use_bias=False, name="pointwise")(x)
    outputs = keras.layers.Flatten()(keras.layers.BatchNormalization(name="second")(x))
    model = with_widths(
        keras.Model(inputs, keras.layers.Dense(3, name="head")(outputs)), [4], granularity="channel"
    )
    for name, signs in (("bn", [-1.0, 0.7, -0.3, 1.2]), ("second", [-1.0, -1.0, -0.7, -1.0, -0.5])):
        model.get_layer(name).gamma.assign(np.float32(signs))
    for name in ("stem", "pointwise"):
        set_lowest(model, name, True)
    report, file = export(model, tmp_path / "model.tflite", mode, IMAGES)
    assert all(zero == [0] for _, _, zero in readers(file))
    # One position: the pointwise convolution is lowered, and would lie in int4 if 8 fitted there;
    # it holds no -8 that would be unsafe.
    assert report.layers[1].stored_bits == 8
    if mode == "latency":
        model.get_layer("second").gamma.assign(np.ones(5, "float32"))
        set_lowest(model, "pointwise", False)
        assert export(model, tmp_path / "other.tflite", mode, IMAGES)[0].layers[1].stored_bits == 4


def test_integers_that_a_container_cannot_hold_are_refused():
    generator = np.random.default_rng(0)
    integers = generator.integers(-2, 2, (3, 4)).astype(np.int8)
    integers[:, 0] = -2

    match = Match(
        KernelIntegers("k", "k", 2, integers, np.ones(3, np.float32)),
        0,
        0,
        False,
        np.float32([-1, 1, 1]),
        None,
    )
    with pytest.raises(ValueError, match="holds 2, which int2 does not"):
        packing.stored_kernel(match, "k", (3, 4), storage.Container(2, "dynamic"))


def test_a_small_pointwise_convolution_becomes_fully_connected(tmp_path):
    inputs = keras.Input((4, 4, 8))
    x = keras.layers.Conv2D(16, 1, activation="relu", name="small")(inputs)
    x = keras.layers.UpSampling2D(2)(x)
    model = with_widths(keras.Model(inputs, keras.layers.Conv2D(8, 1, name="large")(x)), [2])
    data = np.random.default_rng(0).standard_normal((20, 4, 4, 8)).astype("float32")
    report, file = export(model, tmp_path / "model.tflite", "latency", data)
    assert {name: bits for name, bits, _ in readers(file)} == {"FULLY_CONNECTED": 4, "CONV_2D": 8}
    assert report.parity.rms < 0.05


# Small ones show a file whose ranges were measured with the factors in the kernel still.
@pytest.mark.parametrize("factors", [(-1, 2), (0.02, 0.04)])
def test_a_multiplication_fused_into_dense_columns_is_taken_out_in_every_mode(factors, tmp_path):
    inputs = keras.Input((12,))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.ReLU()(inputs))
    model = with_widths(keras.Model(inputs, keras.layers.Dense(4, name="head")(x)), [4])
    model.get_layer("norm").gamma.assign(np.linspace(*factors, 12).astype("float32"))
    data = np.random.default_rng(0).standard_normal((40, 12)).astype("float32")
    for mode in ("latency", "integer"):
        report, _ = export(model, tmp_path / f"{mode}.tflite", mode, data)
        assert report.layers[0].compute == {"latency": "dynamic", "integer": "static"}[mode]
        assert report.parity.rms < 0.03


@pytest.mark.parametrize(
    "mode", ["size", pytest.param("latency", marks=pytest.mark.slow), "integer"]
)
def test_images_of_any_size_stay_dynamic(mode, tmp_path):
    inputs = keras.Input((None, None, 2))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.Conv2DTranspose(4, 2, strides=2)(keras.layers.Conv2D(8, 1)(x))
    model = with_widths(
        keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))), [2, 4]
    )
    generator = np.random.default_rng(0)
    data = [
        generator.standard_normal((count, *size, 2)).astype("float32")
        for count, size in ((3, (8, 8)), (2, (12, 9)), (1, (8, 8)))
    ]
    calibration = (
        {"calibrate_with": ((batch,) for batch in data), "io_dtype": "int8"}
        if mode == "integer"
        else {}
    )
    report = export_tflite(
        model,
        tmp_path / "model.tflite",
        optimize_for=mode,
        verify_with=((batch,) for batch in data),
        **calibration,
    )
    assert report.parity.examples == 6


@pytest.mark.parametrize("activation_bits", [None, 16])
def test_a_channel_that_folding_silenced_keeps_its_bias(activation_bits, tmp_path):
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="stem")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    model = with_widths(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)), [4])
    model.get_layer("bn").gamma.assign(np.float32([0, 1, 1e-9, 1]))
    model.get_layer("bn").beta.assign(np.float32([2, 0, -2, 0.5]))
    wide = {"activation_bits": activation_bits} if activation_bits else {}
    for mode in ("integer",) if wide else ("latency", "integer"):
        export(model, tmp_path / f"{mode}.tflite", mode, IMAGES, **wide)
        (answers,) = TFLiteModel((tmp_path / f"{mode}.tflite").read_bytes())([IMAGES[:4]])
        np.testing.assert_allclose(answers[:, [0, 2]], np.tile([2.0, -2.0], (4, 1)), atol=0.05)


@pytest.mark.slow
def test_pointwise_convolutions_of_open_size_or_several_groups_stay_convolutions(tmp_path):
    data = IMAGES[..., :2]
    for number, (size, groups) in enumerate([((None, None), 1), ((6, 6), 2)]):
        inputs = keras.Input((*size, 2))
        x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(inputs)
        x = keras.layers.Conv2D(8, 1, groups=groups, name="pointwise")(x)
        model = trained_for_a_moment(
            keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)), data
        )
        # Else the lowest level alone would keep it in int8.
        set_lowest(model, "pointwise", False)
        _, file = export(model, tmp_path / f"{number}.tflite", "latency", data)
        assert {name for name, _, _ in readers(file)} == {"CONV_2D"}


@pytest.mark.slow
def test_rows_of_half_a_byte_are_widened(tmp_path):
    data = np.random.default_rng(0).standard_normal((16, 33)).astype("float32")
    inputs = keras.Input((33,))
    model = trained_for_a_moment(
        keras.Model(inputs, keras.layers.Dense(8, name="odd")(inputs)), data
    )
    set_lowest(model, "odd", False)
    _, file = export(model, tmp_path / "model.tflite", "latency", data)
    assert readers(file) == [("FULLY_CONNECTED", 8, [0])]
