"""What a file says of itself, how small it is, and the tool that prints it."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import small_data, small_model
from size_bound import size_bound
from trained_models import remember_budget, with_widths

from bmpq_research import tflite_builder
from bmpq_tf import export_tflite
from bmpq_tf.export.tflite import cleanup, editing, flatbuffer
from bmpq_tf.export.tflite.inspection import (
    IOTensor,
    UnreadableFileError,
    inspect_content,
    inspect_tflite,
    used_bits,
)
from bmpq_tf.export.tflite.interpreter import TFLiteModel

IMAGES, _ = small_data()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    keras.utils.set_random_seed(7)
    folder = tmp_path_factory.mktemp("files")
    model = with_widths(small_model(), [2, 4, 3, 8])
    remember_budget(model, 5)
    for mode in ("size", "latency", "integer"):
        calibrate_with = IMAGES if mode == "integer" else None
        export_tflite(
            model,
            folder / f"{mode}.tflite",
            optimize_for=mode,
            verify_with=IMAGES,
            calibrate_with=calibrate_with,
        )
    return folder


@pytest.mark.parametrize("mode", ["size", "latency", "integer"])
def test_a_file_tells_its_widths_and_holds_nothing_else(mode, files):
    found = inspect_tflite(files / f"{mode}.tflite")
    stored = {
        "size": ["int2", "int4", "int4", "int8"],
        "latency": ["int8", "int8", "int4", "int8"],
        "integer": ["int8"] * 4,
    }
    assert [one.stored for one in found.weights] == stored[mode]
    # A weight may stay away from the ends of its range, never beyond them.
    assert [one.bits <= bits for one, bits in zip(found.weights, (2, 4, 3, 8), strict=True)] == [
        True
    ] * 4
    assert found.weights[0].bits == 2
    assert [one.operator for one in found.weights] == [
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "FULLY_CONNECTED",
        "FULLY_CONNECTED",
    ]
    assert [one.dequantized for one in found.weights] == {
        "size": [True] * 4,
        "latency": [False, True, False, False],
        "integer": [False] * 4,
    }[mode]
    assert found.metadata["optimize_for"] == mode
    assert found.metadata["budget"] == {"compression": 5}
    assert [kernel["bits"] for kernel in found.metadata["kernels"]] == [2, 4, 3, 8]
    assert set(found.metadata["versions"]) == {
        "bmpq_tf",
        "ai-edge-litert",
        "keras",
        "litert-quantizer",
        "tensorflow",
    }
    assert found.orphaned_bytes == 0
    assert found.custom_operators == ()
    assert found.bytes <= found.size_bound


def test_a_file_tells_what_a_program_gives_it_and_gets(files, tmp_path):
    """Keras numbers an input without a name, so only the file can tell what a phone calls it."""
    (signature,) = inspect_tflite(files / "size.tflite").signatures
    assert signature.key == "serving_default"
    assert signature.inputs == (IOTensor("image", (-1, 6, 6, 2), "float32", None, None),)
    assert signature.outputs == (IOTensor("output_0", (-1, 3), "float32", None, None),)
    model = with_widths(small_model(), [2, 4, 3, 8])
    export_tflite(
        model,
        tmp_path / "int8.tflite",
        optimize_for="integer",
        io_dtype="int8",
        calibrate_with=IMAGES,
    )
    (signature,) = inspect_tflite(tmp_path / "int8.tflite").signatures
    runtime = TFLiteModel((tmp_path / "int8.tflite").read_bytes())
    for one, detail in (
        (signature.inputs[0], runtime.inputs[0]),
        (signature.outputs[0], runtime.outputs[0]),
    ):
        assert (one.stored, (one.scale, one.zero_point)) == ("int8", detail["quantization"])
        assert one.scale > 0


def test_inputs_are_told_in_the_graphs_order_and_by_the_tensors_names_without_a_signature():
    file = tflite_builder.Builder()
    fed = [file.tensor(name, (1, 2), flatbuffer.FLOAT32) for name in ("zebra", "ant")]
    result = file.tensor("sum", (1, 2), flatbuffer.FLOAT32)
    file.operator(0, fed, [result], ("Add", {}))
    content = file.content(fed, [result])
    (told,) = inspect_content(content).signatures
    assert told.key is None
    assert [one.name for one in told.inputs] == ["zebra", "ant"]
    signed = flatbuffer.parse(content)
    editing.add_signature(signed, ["z", "a"], ["output_0"])
    signed.signatureDefs[0].inputs.reverse()
    (told,) = inspect_content(flatbuffer.serialised(signed)).signatures
    assert [one.name for one in told.inputs] == ["z", "a"]


@pytest.mark.parametrize("mode", ["size", "latency", "integer"])
def test_no_two_buffers_are_equal_and_no_packed_weight_lies_there_as_float(mode, files):
    file = flatbuffer.parse((files / f"{mode}.tflite").read_bytes())
    contents = [
        buffer.data.tobytes()
        for buffer in file.buffers
        if buffer.data is not None and len(buffer.data)
    ]
    assert len(contents) == len(set(contents))
    floats = [
        tensor
        for tensor in file.subgraphs[0].tensors
        if tensor.type == flatbuffer.FLOAT32 and flatbuffer.constant(file, tensor) is not None
    ]
    assert all(len(tensor.shape) <= 1 for tensor in floats)


def test_cleaning_up_removes_what_nothing_reads_and_shares_what_is_equal():
    file = tflite_builder.Builder()
    fed = file.tensor("input", (1, 2), flatbuffer.FLOAT32)
    twins = [
        file.tensor(f"factor_{number}", (2,), flatbuffer.FLOAT32, np.float32([2, 3]))
        for number in range(2)
    ]
    file.tensor("unused", (500,), flatbuffer.FLOAT32, np.ones(500, np.float32))
    middle, result = (
        file.tensor(name, (1, 2), flatbuffer.FLOAT32) for name in ("middle", "output")
    )
    file.operator(18, [fed, twins[0]], [middle], ("Mul", {}))
    file.operator(18, [middle, twins[1]], [result], ("Mul", {}))
    cleaned = flatbuffer.parse(file.content([fed], [result]))
    cleanup.clean_up(cleaned, {"note": b"hello"})
    cleaned = flatbuffer.parse(flatbuffer.serialised(cleaned))
    assert [flatbuffer.tensor_name(tensor) for tensor in cleaned.subgraphs[0].tensors] == [
        "input",
        "factor_0",
        "factor_1",
        "middle",
        "output",
    ]
    assert sorted(len(buffer.data) for buffer in cleaned.buffers if buffer.data is not None) == [
        5,
        8,
    ]
    assert flatbuffer.metadata(cleaned) == {"note": b"hello"}


def test_a_large_file_is_read_too(tmp_path):
    """Above 256 kB the buffers lie behind the tables."""
    inputs = keras.Input((600,))
    model = with_widths(keras.Model(inputs, keras.layers.Dense(600, name="dense")(inputs)), [8])
    report = export_tflite(model, tmp_path / "model.tflite")
    assert (
        inspect_tflite(tmp_path / "model.tflite").weights[0].bytes
        == report.packed_weight_bytes
        == 360_000
    )


def test_a_float_copy_of_a_packed_weight_breaks_the_bound(tmp_path):
    inputs = keras.Input((300,))
    model = with_widths(keras.Model(inputs, keras.layers.Dense(300, name="dense")(inputs)), [4])
    report = export_tflite(model, tmp_path / "model.tflite")
    bound = size_bound(model, report)
    assert 0.7 * bound < report.tflite_bytes <= bound
    file = flatbuffer.parse((tmp_path / "model.tflite").read_bytes())
    editing.add_tensor(
        file,
        file.subgraphs[0],
        "left",
        (300, 300),
        flatbuffer.FLOAT32,
        np.ones((300, 300), np.float32),
    )
    content = flatbuffer.serialised(file)
    assert len(content) > bound
    # The file alone takes the copy for a constant that it needs.
    assert inspect_content(content).size_bound > len(content)


@pytest.mark.parametrize(
    ("values", "bits"),
    [
        ([0, 0], 1),
        ([0, -1], 1),
        ([1, 0], 2),
        ([-2, 1], 2),
        ([-8, 3], 4),
        ([3, 8], 5),
        ([-127, 2], 8),
        # In int8 files they may be multiples.
        ([-126, 63], 2),
        ([-126, 42], 2),
        ([-124, 93], 3),
    ],
)
def test_the_bits_that_integers_really_use(values, bits):
    assert used_bits(np.int8(values)) == bits


def test_files_of_others_are_read():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(64)(inputs)))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    found = inspect_content(converter.convert())
    assert found.metadata is None
    assert {one.operator for one in found.weights} == {"FULLY_CONNECTED"}
    assert sum(one.count for one in found.weights) == 4 * 64 + 64 * 3


def test_broken_files_are_told_in_a_line(files):
    content = (files / "size.tflite").read_bytes()
    for broken, reason in (
        (b"", "Not a TFLite model"),
        (b"hello, this is text", "Not a TFLite model"),
        (content[:600], "The file is broken"),
    ):
        with pytest.raises(UnreadableFileError, match=reason) as error:
            inspect_content(broken, "mine.tflite")
        assert "mine.tflite" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_tool_tells_the_names_that_a_phone_needs(files):
    done = subprocess.run(
        [sys.executable, "-m", "bmpq_tf.cli.inspect", str(files / "size.tflite")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert 'signature "serving_default", -1 is any size:' in done.stdout
    assert (
        "  input image: float32 [-1, 6, 6, 2]\n  output output_0: float32 [-1, 3]\n" in done.stdout
    )


@pytest.mark.slow
def test_the_tool_prints_json_and_draws(files, tmp_path):
    script = [
        sys.executable,
        "-m",
        "bmpq_tf.cli.inspect",
        str(files / "size.tflite"),
        "--json",
        f"--plot={tmp_path / 'bits.png'}",
    ]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [one["stored"] for one in told["weights"]] == ["int2", "int4", "int4", "int8"]
    assert told["signatures"][0]["inputs"] == [
        {
            "name": "image",
            "shape": [-1, 6, 6, 2],
            "stored": "float32",
            "scale": None,
            "zero_point": None,
        }
    ]
    assert told["zipped_bytes"] < told["bytes"]
    assert (tmp_path / "bits.png").read_bytes()[:4] == b"\x89PNG"
