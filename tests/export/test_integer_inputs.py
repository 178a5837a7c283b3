"""Inputs of integers in integer files: read as they are, or as int8 with the shift in the grid."""

import keras
import numpy as np
import pytest
from test_optimize_for import export, trained_for_a_moment
from trained_models import with_widths

from bmpq_research import tflite_builder
from bmpq_tf import ExportError, compare_tflite, export_tflite, run_tflite, write_firmware
from bmpq_tf.export.integer import input_ranges, integer_inputs
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.interpreter import TFLiteModel
from bmpq_tf.export.verification import near_ties

layers = keras.layers
RANDOM = np.random.default_rng(0)
MEAN, VARIANCE = [120.0, 110.0, 100.0], [3600.0, 2500.0, 4900.0]
FRONTS = {
    "Rescaling": lambda image: layers.Rescaling(1 / 127.5, -1)(image),
    "Normalization": lambda image: layers.Normalization(mean=MEAN, variance=VARIANCE)(image),
    "none": lambda image: image,
    "cast": lambda image: keras.ops.cast(image, "float32") / 255.0,
}


def pixels(dtype: str) -> np.ndarray:
    low, high = {"int8": (-128, 128), "bool": (0, 2), "int16": (-300, 1024)}.get(dtype, (0, 256))
    return RANDOM.integers(low, high, (24, 8, 8, 3)).astype(dtype)


def network(dtype: str, front: str = "Rescaling") -> keras.Model:
    image = keras.Input((8, 8, 3), dtype=dtype, name="image")
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(FRONTS[front](image))
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def ends(file) -> list[tuple[str, tuple[float, int] | None]]:
    """The types of the inputs and outputs, and their grids."""
    subgraph, found = file.subgraphs[0], []
    names = {3: "uint8", 9: "int8", 7: "int16", 2: "int32", 4: "int64", 6: "bool", 0: "float32"}
    for index in [*subgraph.inputs, *subgraph.outputs]:
        tensor = subgraph.tensors[int(index)]
        grid = tensor.quantization
        scaled = flatbuffer.scale_count(tensor)
        found.append(
            (names[tensor.type], (float(grid.scale[0]), int(grid.zeroPoint[0])) if scaled else None)
        )
    return found


def has_floats(file) -> bool:
    subgraph = file.subgraphs[0]
    outputs = set(map(int, subgraph.outputs))
    tensors = enumerate(subgraph.tensors)
    return any(one.type == flatbuffer.FLOAT32 and n not in outputs for n, one in tensors)


@pytest.mark.parametrize(
    ("dtype", "front", "activation_bits", "as_it_is", "as_int8"),
    [
        ("uint8", "Rescaling", None, (1.0, 0), (1.0, -128)),
        ("uint8", "cast", 8, (1.0, 0), (1.0, -128)),
        ("int8", "Normalization", None, (1.0, 0), (1.0, 0)),
        ("int32", "Normalization", None, (1.0, 0), (1.0, -128)),
        ("int16", "cast", 8, (1.0, 0), None),
        ("int64", "Rescaling", None, None, (1.0, -128)),
        ("bool", "cast", None, None, (pytest.approx(1 / 255), -128)),
    ],
)
@pytest.mark.slow
def test_integers_go_in_as_they_are_or_as_int8(
    dtype, front, activation_bits, as_it_is, as_int8, tmp_path
):
    data = pixels(dtype)
    model = trained_for_a_moment(network(dtype, front), data, activation_bits=activation_bits)
    answers = {}
    for io_dtype in ("float32", "int8"):
        path = tmp_path / f"{io_dtype}.tflite"
        report, file = export(model, path, "integer", data, io_dtype=io_dtype)
        assert report.parity.rms < 0.05
        assert not has_floats(file)
        (kind, grid), (answer, _) = ends(file)
        assert (kind, answer) == (dtype if io_dtype == "float32" else "int8", io_dtype)
        if io_dtype == "float32" or as_int8 is not None:
            assert grid == (as_it_is if io_dtype == "float32" else as_int8)
        # The built-in kernels round alike whatever the file's ends are.
        answers[io_dtype] = TFLiteModel(path.read_bytes(), xnnpack=False)([data])[0]
    step = ends(file)[1][1][0]
    np.testing.assert_allclose(answers["float32"], answers["int8"], atol=1.01 * step)


@pytest.mark.parametrize("mode", ["size", "latency"])
def test_other_kinds_of_files_cast_bytes_themselves(mode, tmp_path):
    data = pixels("uint8")
    model = trained_for_a_moment(network("uint8"), data)
    report, file = export(model, tmp_path / "model.tflite", mode, data)
    assert report.parity.rms < 0.05
    assert ends(file)[0] == ("uint8", None)


@pytest.mark.parametrize(("io_dtype", "first"), [(None, "int8"), ("uint8", "uint8")])
def test_a_microcontroller_takes_bytes_and_its_golden_inputs_hold_them(io_dtype, first, tmp_path):
    pytest.importorskip("tflite_micro")
    data = pixels("uint8")
    path = tmp_path / "model.tflite"
    export_tflite(
        trained_for_a_moment(network("uint8"), data),
        path,
        optimize_for="micro",
        calibrate_with=data,
        io_dtype=io_dtype,
    )
    assert ends(flatbuffer.parse(path.read_bytes()))[0][0] == first
    write_firmware(path, tmp_path / "firmware", data, examples=1)
    golden = (tmp_path / "firmware" / "golden.cc").read_text()
    start = golden.index("bmpq_golden_input_0[")
    written = golden[golden.index("{", start) + 1 : golden.index("}", start)].split(",")
    shift = 0 if first == "uint8" else 128
    assert [int(text) + shift for text in written if text.strip()] == data[0].ravel().tolist()
    settings = (tmp_path / "firmware" / "settings.h").read_text()
    assert f"bmpq_input_0_zero_point = {-shift};" in settings


def test_bytes_serve_a_float_model_and_pixels_are_taken_as_they_are(tmp_path):
    data = pixels("uint8")
    data[data > 250] = 250
    model = trained_for_a_moment(network("float32"), data.astype("float32"))
    path = tmp_path / "model.tflite"
    report, file = export(model, path, "integer", data.astype("float32"), io_dtype="uint8")
    assert report.parity.rms < 0.05
    (kind, grid), (answer, _) = ends(file)
    assert (kind, grid, answer) == ("uint8", (1.0, 0), "uint8")
    np.testing.assert_array_equal(run_tflite(path, data), run_tflite(path, data.astype("float32")))
    # Also where the range of what comes in was trained.
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, activation="relu")(image)
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    model = trained_for_a_moment(model, data.astype("float32"), activation_bits=8)
    other = tmp_path / "rounded.tflite"
    _, file = export(model, other, "integer", data.astype("float32"), io_dtype="uint8")
    assert ends(file)[0] == ("uint8", (1.0, 0))
    np.testing.assert_array_equal(
        run_tflite(other, data), run_tflite(other, data.astype("float32"))
    )
    # What is no pixel has a grid of its own.
    fractions = (data / 127.5 - 1).astype("float32")
    model = trained_for_a_moment(network("float32", "none"), fractions)
    _, file = export(model, tmp_path / "other.tflite", "integer", fractions, io_dtype="uint8")
    kind, (scale, zero_point) = ends(file)[0]
    assert (kind, scale) == ("uint8", pytest.approx(np.ptp(fractions) / 255, rel=1e-3))
    assert scale * (0 - zero_point) == pytest.approx(fractions.min(), abs=scale)


@pytest.mark.parametrize("io_dtype", ["float32", "int8", "uint8"])
def test_indices_stay_indices_and_what_is_read_both_ways_keeps_its_type(io_dtype, tmp_path):
    words = keras.Input((5,), dtype="int32", name="words")
    both = keras.Input((4,), dtype="int32", name="both")
    x = layers.Concatenate()(
        [
            layers.Flatten()(layers.Embedding(20, 4)(words)),
            layers.Flatten()(layers.Embedding(20, 4)(both)),
            layers.Rescaling(0.1)(both),
        ]
    )
    model = with_widths(keras.Model([words, both], layers.Dense(3)(x)), [8])
    data = [RANDOM.integers(0, 20, (30, size)).astype("int32") for size in (5, 4)]
    report, file = export(model, tmp_path / "model.tflite", "integer", data, io_dtype=io_dtype)
    assert report.parity.rms < 0.1
    assert [kind for kind, _ in ends(file)] == ["int32", "int32", io_dtype]


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_bytes_that_are_moved_before_the_cast_serve_a_phone_and_tflm_says_what_it_lacks(
    dtype, tmp_path
):
    pytest.importorskip("tflite_micro")
    image = keras.Input((8, 8, 3), dtype=dtype)
    x = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(layers.Cropping2D(1)(image)))
    model = with_widths(keras.Model(image, layers.GlobalAveragePooling2D()(x)), [8])
    data = pixels(dtype)
    report, file = export(model, tmp_path / "model.tflite", "integer", data)
    assert report.parity.rms < 0.05
    assert not has_floats(file)
    with pytest.raises(ExportError, match=rf"TFLM casts no {dtype}\. Cast or rescale"):
        export_tflite(model, tmp_path / "m.tflite", optimize_for="micro", calibrate_with=data)


def test_integers_of_16_bits_that_are_moved_make_no_file_of_16_bits(tmp_path):
    image = keras.Input((8, 8, 3), dtype="int16")
    x = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(layers.Cropping2D(1)(image)))
    model = with_widths(keras.Model(image, layers.GlobalAveragePooling2D()(x)), [8])
    data = pixels("int16")
    path = tmp_path / "model.tflite"
    export(model, path, "integer", data)
    parity = compare_tflite(model, path, data, optimize_for="integer")
    assert (parity.rounded, parity.holds) == (None, True)


def test_trained_ranges_need_no_data_for_bytes(tmp_path):
    data = pixels("uint8")
    image = keras.Input((8, 8, 3), dtype="uint8")
    x = layers.Conv2D(6, 3, activation="relu")(FRONTS["cast"](image))
    x = layers.Conv2D(3, 6, activation="relu")(x)
    model = trained_for_a_moment(keras.Model(image, layers.Flatten()(x)), data, activation_bits=8)
    with pytest.raises(ValueError, match="output 0 need data") as raised:
        export_tflite(model, tmp_path / "model.tflite", optimize_for="integer")
    assert "ast" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "measured", "expected"),
    [
        ("uint8", None, (0, 255)),
        ("uint8", (3, 200), (0, 255)),
        ("uint8", (0, 3), (0, 3)),
        ("int32", (0, 200), (0, 255)),
        ("int32", (-5, 200), (-5, 250)),
        ("int32", (-100, 100), (-128, 127)),
        ("int32", (0, 7), (0, 255 / 36)),
        ("int32", (0, 1000), None),
        ("int16", None, None),
        ("bool", (0, 0), (0, 1)),
    ],
)
def test_whole_numbers_lie_on_the_steps_of_int8(kind, measured, expected):
    types = {"uint8": 3, "int32": 2, "int16": 7, "bool": 6}
    file = tflite_builder.Builder()
    given = file.tensor("given", (1, 4), types[kind])
    made = file.tensor("made", (1, 4), flatbuffer.FLOAT32)
    result = file.tensor("result", (1, 4), flatbuffer.FLOAT32)
    file.operator(integer_inputs._BUILTIN.CAST, [given], [made], ("Cast", {}))
    file.operator(integer_inputs._BUILTIN.RELU, [made], [result], ("", {}))
    model = flatbuffer.parse(file.content([given], [result]))
    found = input_ranges.ranges(model, {} if measured is None else {"made": measured})
    assert found.get("made") == (None if expected is None else pytest.approx(expected))


def test_small_indices_stay_as_they_are_beside_bytes(tmp_path):
    words = keras.Input((5,), dtype="int8", name="words")
    x = layers.Flatten()(layers.Embedding(20, 4)(words))
    data = np.random.default_rng(0).integers(0, 20, (32, 5)).astype("int8")
    model = trained_for_a_moment(keras.Model(words, layers.Dense(3)(x)), data)
    _, file = export(model, tmp_path / "model.tflite", "integer", data, io_dtype="uint8")
    assert [kind for kind, _ in ends(file)] == ["int8", "uint8"]
    # Near ties are judged by the step of the answers, in bytes too.
    assert near_ties.output_steps(file)[0] > 0
