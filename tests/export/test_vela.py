"""What Vela makes of our files: everything on the NPU, and bytes by kernel."""

import importlib.util
import subprocess
import sys

import keras
import numpy as np
import pytest
import zoo
from test_export_zoo import ZOO, trained

import bmpq_tf
from bmpq_tf.allocation.npu_flash import encoded_bytes
from bmpq_tf.export.npu import vela
from bmpq_tf.model.kernels import model_kernels

pytestmark = pytest.mark.apart
needs_vela = pytest.mark.skipif(
    importlib.util.find_spec("ethosu") is None, reason="needs the extra npu"
)
INTEGER = {"optimize_for": "integer", "io_dtype": "int8"}


def one_at_a_time(model: keras.Model) -> keras.Model:
    """The model for a batch of one, which is all that an NPU takes."""
    inputs = [
        keras.Input(batch_shape=(1, *tensor.shape[1:]), dtype=tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    inputs = inputs[0] if len(inputs) == 1 else inputs
    return keras.Model(inputs, model(inputs), name=model.name)


def exported(model: keras.Model, path, inputs, **more):
    bmpq_tf.export_tflite(model, path, calibrate_with=inputs, **{**INTEGER, **more})
    return path


def small(widths) -> keras.Model:
    """A quantized model of a convolution, a depthwise one and a dense layer, at these widths."""
    image = keras.Input((8, 8, 32), name="image")
    x = keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv")(image)
    x = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, keras.layers.Dense(64, name="head")(x), name="small")
    layers = ("conv", "depthwise", "head")
    overrides = dict(zip(layers, widths, strict=True))
    return bmpq_tf.quantize_model(model, pin=None, overrides=overrides)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((16, 8, 8, 32)).astype("float32")


@needs_vela
def test_narrow_kernels_take_fewer_bytes_and_nothing_is_left_to_the_processor(images, tmp_path):
    reports = [
        bmpq_tf.inspect_vela(exported(small(widths), tmp_path / f"{widths}.tflite", images))
        for widths in ((8, 8, 8), (2, 4, 8))
    ]
    wide, mixed = reports
    for report in reports:
        assert report.cpu_operators == ()
        assert report.npu_operators >= 4
        assert [kernel.count for kernel in report.kernels] == [9216, 288, 2048]
        # The rest of the weights is the average's, and the rest of the flash biases and scales.
        of_kernels = sum(kernel.encoded_bytes for kernel in report.kernels)
        assert of_kernels < report.encoded_bytes < report.flash_bytes
        assert report.flash_bytes + report.command_bytes < report.file_bytes
        assert report.sram_bytes > 0
        assert report.seconds > 0
    conv, depthwise, head = zip(wide.kernels, mixed.kernels, strict=True)
    assert conv[1].encoded_bits < 2.1 < 6 < conv[0].encoded_bits < 8.1
    assert depthwise[1].encoded_bytes < depthwise[0].encoded_bytes
    assert head[1].encoded_bytes == head[0].encoded_bytes
    assert head[1].cycles == head[0].cycles > head[0].compute_cycles > 0
    # A dense layer waits for its weights.
    assert head[0].cycles > head[0].encoded_bytes


@needs_vela
@pytest.mark.parametrize(
    "bits", [4, *(pytest.param(bits, marks=pytest.mark.slow) for bits in (2, 3, 5, 8))]
)
def test_an_estimate_without_vela_is_no_less_than_its_bytes_and_near(bits, tmp_path):
    image = keras.Input((8, 8, 16), name="image")
    x = keras.layers.Conv2D(48, 3, activation="relu", name="conv")(image)
    x = keras.layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = keras.layers.Conv2D(64, 1, activation="relu", name="pointwise")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(24, name="head")(x)
    # Weights of equal frequency up to the largest, which is what widths are full with.
    config = bmpq_tf.QuantizationConfig((bits,), scale="max_abs")
    model = bmpq_tf.quantize_model(keras.Model(image, x, name="full"), pin=None, config=config)
    images = np.random.default_rng(0).standard_normal((8, 8, 8, 16)).astype("float32")
    report = bmpq_tf.inspect_vela(exported(model, tmp_path / "model.tflite", images))
    predicted = [encoded_bytes(state.kernel, bits) for state in model_kernels(model)]
    encoded = [kernel.encoded_bytes for kernel in report.kernels]
    assert all(least <= most for least, most in zip(encoded, predicted, strict=True))
    # At 2 bits even weights have no -2, which is one level of four.
    assert bits == 2 or sum(predicted) < 1.03 * sum(encoded)


@needs_vela
def test_a_budget_of_flash_on_the_npu_is_kept(images, tmp_path):
    model = small(3 * ((2, 4, 8),))
    costs = {row.path: [3.0, 1.0, 0.0] for row in bmpq_tf.kernel_table(model)}
    found = bmpq_tf.allocate_bits(model, "5 kB npu flash", costs)
    bmpq_tf.assign_bits(model, found.bits)
    report = bmpq_tf.inspect_vela(exported(model, tmp_path / "model.tflite", images))
    assert found.bits["conv/kernel"] == 2
    assert sum(kernel.encoded_bytes for kernel in report.kernels) <= 5_000


@needs_vela
def test_kernels_are_told_in_the_order_of_the_inspection(images, tmp_path):
    path = exported(small((4, 4, 4)), tmp_path / "model.tflite", images)
    names = [one.name for one in bmpq_tf.inspect_tflite(path).weights]
    assert [kernel.name for kernel in bmpq_tf.inspect_vela(path).kernels] == names


@needs_vela
def test_what_stays_on_the_processor_is_named(images, tmp_path):
    path = exported(small((4, 4, 4)), tmp_path / "model.tflite", images, io_dtype="float32")
    report = bmpq_tf.inspect_vela(path)
    kinds = [operator.split()[0] for operator in report.cpu_operators]
    assert kinds == ["QUANTIZE", "DEQUANTIZE"]


@needs_vela
def test_a_kernel_that_only_the_processor_reads_has_no_encoding(images, tmp_path):
    path = tmp_path / "model.tflite"
    bmpq_tf.export_tflite(small((8, 8, 8)), path)
    report = bmpq_tf.inspect_vela(path)
    assert {kernel.encoded_bytes for kernel in report.kernels} == {None}
    assert {kernel.encoded_bits for kernel in report.kernels} == {None}
    assert report.npu_operators == report.flash_bytes == 0


@needs_vela
def test_a_file_that_vela_refuses_is_an_error_of_one_line(tmp_path):
    path = tmp_path / "model.tflite"
    bmpq_tf.export_tflite(small((2, 2, 2)), path)
    with pytest.raises(bmpq_tf.VelaError, match=r"Vela .* (failed|crashed).*io_dtype") as error:
        bmpq_tf.inspect_vela(path)
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)


@needs_vela
def test_the_accelerators_are_velas():
    command = [sys.executable, "-m", "ethosu.vela", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    told = said.partition("--accelerator-config {")[2].partition("}")[0]
    assert tuple(told.split(",")) == vela.ACCELERATORS


@needs_vela
@pytest.mark.parametrize(
    ("code", "stderr", "said"),
    [
        (-11, "", "crashed (SIGSEGV)."),
        (1, "Traceback\n  file\nRuntimeError: It\n - is so\n\n", "failed: It; is so."),
        (1, "no such thing\n", "failed: no such thing."),
        (1, "", "failed: it did not say why."),
    ],
)
def test_what_a_failed_vela_said_is_one_line(code, stderr, said):
    done = subprocess.CompletedProcess([], code, "", stderr)
    assert vela._complaint(done) == f"Vela {vela.version()} {said}"


@needs_vela
def test_a_vela_that_reports_otherwise_is_said_to(images, tmp_path, monkeypatch):
    path = exported(small((4, 4, 4)), tmp_path / "model.tflite", images)
    read = vela._tables
    monkeypatch.setattr(vela, "_tables", lambda path: {**read(path), "source": [{"id": "1"}]})
    with pytest.raises(bmpq_tf.VelaError, match=r"another form.*ext_key.*Install ethos-u-vela"):
        bmpq_tf.inspect_vela(path)


def test_bad_input_is_answered_before_vela_starts(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"Unknown accelerator.*'npu'.*ethos-u55-32, .*-2048"):
        bmpq_tf.inspect_vela(tmp_path / "model.tflite", "npu")
    monkeypatch.setattr(vela.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'bmpq_tf\[npu\]'"):
        bmpq_tf.inspect_vela(tmp_path / "model.tflite")
    monkeypatch.setattr(vela.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(FileNotFoundError, match=r"No such file.*model\.tflite"):
        bmpq_tf.inspect_vela(tmp_path / "model.tflite")
    (tmp_path / "notes.tflite").write_text("no model")
    with pytest.raises(bmpq_tf.UnreadableFileError, match=r"notes\.tflite"):
        bmpq_tf.inspect_vela(tmp_path / "notes.tflite")


@needs_vela
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in zoo.SMALL if name != "transformer"])
def test_small_architectures_go_to_the_npu_wholly(name, tmp_path):
    model = bmpq_tf.quantize_model(one_at_a_time(zoo.ZOO[name]()))
    inputs = zoo.example_batch(model, 4)[0]
    report = bmpq_tf.inspect_vela(exported(model, tmp_path / "model.tflite", inputs))
    assert report.cpu_operators == ()
    # A kernel that several layers share is stored once.
    of_kernels = sum(kernel.encoded_bytes for kernel in report.kernels)
    assert of_kernels <= report.encoded_bytes
    assert len(report.kernels) == len(model_kernels(model))


@needs_vela
@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_real_architectures_go_to_the_npu_wholly(name, tmp_path):
    model, inputs = trained(ZOO[name])
    path = exported(one_at_a_time(model), tmp_path / "model.tflite", inputs, tolerance=0.99)
    report = bmpq_tf.inspect_vela(path)
    kinds = {operator.split()[0] for operator in report.cpu_operators}
    # A look-up is the processor's.
    assert kinds == ({"LESS", "SELECT", "GATHER"} if name == "text_classifier" else set())
