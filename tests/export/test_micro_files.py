"""Files for microcontrollers, from the trained model to TFLM's answers."""

import json
import pathlib
import re

import keras
import numpy as np
import pytest

pytest.importorskip("tflite_micro")

from micro_models import IMAGES, OPTIONS, RANDOM, network, trained

from bmpq_tf import (
    ExportError,
    compare_tflite,
    export_tflite,
    inspect_tflite,
    kernel_table,
    quantize_model,
    run_tflite,
)
from bmpq_tf._compat import tflite_micro
from bmpq_tf.cli.program import HINTS
from bmpq_tf.export.micro import operators, runtime
from bmpq_tf.export.micro.runtime import MicroModel
from bmpq_tf.export.tflite import flatbuffer

layers = keras.layers
WIDTHS = {"wide/kernel": 3, "depthwise/kernel": 2, "hidden/kernel": 5}


@pytest.fixture(scope="module")
def model():
    return trained(WIDTHS)


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("micro") / "model.tflite"
    return export_tflite(model, path, **OPTIONS)


def test_every_kernel_lies_at_its_width_and_tflm_answers_as_with_int8(written):
    stored = {layer.name: layer.stored_bits for layer in written.layers}
    assert stored["wide/kernel"] == 3
    assert stored["hidden/kernel"] == 5
    # So small that a table would cost more.
    assert stored["depthwise/kernel"] == 4
    assert stored["stem/kernel"] == 8
    assert written.micro.examples == len(IMAGES)
    assert "TFLM_DECODE" in written.micro.operators


def test_the_file_holds_little_beside_kernels_scales_and_biases(written):
    content = pathlib.Path(written.path).read_bytes()
    found = flatbuffer.parse(content)
    tensors = found.subgraphs[0].tensors
    assert found.signatureDefs is None
    assert not any(tensor.name for tensor in tensors)
    scales = sum(flatbuffer.scale_count(tensor) for tensor in tensors)
    biases = sum(
        len(found.buffers[tensor.buffer].data) // 4
        for tensor in tensors
        if tensor.type == flatbuffer.schema.TensorType.INT32
        and found.buffers[tensor.buffer].data is not None
    )
    operators = len(found.subgraphs[0].operators)
    kernels = sum(layer.weights * layer.bits for layer in written.layers) / 8
    assert len(content) <= 1.03 * (kernels + 4 * scales + 4 * biases) + 2000 + 150 * operators
    assert inspect_tflite(written.path).metadata["bits"] == [8, 3, 2, 5, 8]


def test_the_arena_is_the_least_that_works(written):
    content = pathlib.Path(written.path).read_bytes()
    MicroModel(content, written.micro.arena.bytes)
    with pytest.raises(RuntimeError, match="TFLM failed"):
        MicroModel(content, written.micro.arena.bytes - 64)


def test_run_tflite_runs_it_in_tflm(written):
    (answers,) = run_tflite(written.path, IMAGES, batch_size=5)
    (told,) = MicroModel(pathlib.Path(written.path).read_bytes())([IMAGES])
    np.testing.assert_array_equal(answers, told)
    assert len(np.unique(answers)) > 10


def test_examples_that_can_be_read_once_are_given_to_both_runtimes(model, tmp_path):
    batches = (IMAGES[start : start + 8] for start in range(0, len(IMAGES), 8))
    path = tmp_path / "model.tflite"
    report = export_tflite(model, path, **{**OPTIONS, "verify_with": ((one,) for one in batches)})
    assert (report.parity.examples, report.micro.examples) == (len(IMAGES), len(IMAGES))


def test_the_program_that_tries_arenas_is_started_again_where_it_was_ended(written):
    content = pathlib.Path(written.path).read_bytes()
    expected = runtime.least_arena(content)
    runtime._trials().kill()
    runtime._trials().wait()
    assert runtime.least_arena(content) == expected


def test_the_program_that_tries_arenas_sees_packages_from_outside_of_the_environment(
    written, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seen = tmp_path / "seen"
    (tmp_path / "sitecustomize.py").write_text(f"open({str(seen)!r}, 'w')")
    runtime._trials().kill()
    runtime._trials().wait()
    runtime.least_arena(pathlib.Path(written.path).read_bytes())
    assert seen.exists()


def test_only_trained_kernels_count_as_packed(tmp_path):
    model = quantize_model(network(), (8,), exclude="head", activation_bits=8)
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(IMAGES, np.zeros((len(IMAGES), 4), "float32"), verbose=0)
    report = export_tflite(model, tmp_path / "model.tflite", **OPTIONS)
    quantized = [row.weights for row in kernel_table(model) if row.bits == 8]
    assert report.packed_weight_bytes == sum(quantized)


def test_steps_are_those_of_the_integers_behind_an_output_of_floats(model, tmp_path):
    options = {**OPTIONS, "io_dtype": "float32"}
    report = export_tflite(model, tmp_path / "model.tflite", **options)
    whole = export_tflite(model, tmp_path / "whole.tflite", **OPTIONS)
    assert (report.micro.steps, report.micro.within_a_step) == (
        whole.micro.steps,
        whole.micro.within_a_step,
    )


def test_a_kernel_that_is_rounded_anew_says_so_whatever_its_form(tmp_path):
    given = keras.Input((6, 8))
    x = layers.EinsumDense("bsd,ds->bsd", (6, 8), name="each")(layers.Dense(8)(given))
    model = quantize_model(
        keras.Model(given, layers.Dense(3)(layers.GlobalAveragePooling1D()(x))), (4,), pin=None
    )
    data = np.random.default_rng(0).standard_normal((32, 6, 8)).astype("float32")
    report = export_tflite(
        model, tmp_path / "model.tflite", optimize_for="micro", calibrate_with=data
    )
    (each,) = [layer for layer in report.layers if layer.name == "each/kernel"]
    assert (each.bits, each.stored_bits) == (4, 8)
    assert "rounded once more, not exactly as trained" in each.note


def test_a_file_without_packed_kernels_runs_in_tflm_too(tmp_path):
    # Of one zero point beside many scales, which LiteRT refuses.
    report = export_tflite(trained(model=network(4)), tmp_path / "int8.tflite", **OPTIONS)
    assert "TFLM_DECODE" not in report.micro.operators
    (answers,) = run_tflite(report.path, IMAGES[:3])
    (told,) = MicroModel((tmp_path / "int8.tflite").read_bytes())([IMAGES[:3]])
    np.testing.assert_array_equal(answers, told)


def test_compare_tflite_compares_it_in_tflm(model, written):
    parity = compare_tflite(model, written.path, IMAGES, optimize_for="micro")
    assert parity.examples == len(IMAGES)
    # Of weights that hardly trained; see OPTIONS.
    assert 0 < parity.rms < 0.5


@pytest.mark.slow
def test_a_float_border_and_ranges_from_data_serve_too(tmp_path):
    model = trained(WIDTHS, activation_bits=None)
    report = export_tflite(
        model,
        tmp_path / "float.tflite",
        io_dtype="float32",
        **OPTIONS,
    )
    assert {"QUANTIZE", "DEQUANTIZE"} <= set(report.micro.operators)


def test_a_wrong_table_is_caught_by_tflm(model, tmp_path, monkeypatch):
    honest = tflite_micro.ancillary_data

    def with_stride(bits, tables, axis):
        told = bytearray(honest(bits, tables, axis))
        told[6] = tables.shape[1] if axis is None else told[6]
        return bytes(told)

    monkeypatch.setattr(tflite_micro, "ancillary_data", with_stride)
    path = tmp_path / "wrong.tflite"
    with pytest.raises(ExportError, match="does not answer as the int8 file"):
        export_tflite(model, path, **OPTIONS)
    assert not path.exists()


def test_a_wrong_index_is_caught_when_it_is_read_back(model, tmp_path, monkeypatch):
    honest = tflite_micro.pack_indices

    def one_off(indices, bits):
        changed = indices.copy()
        changed.flat[5] = (changed.flat[5] + 1) % 2**bits
        return honest(changed, bits)

    monkeypatch.setattr(tflite_micro, "pack_indices", one_off)
    with pytest.raises(ExportError, match="does not hold the integers"):
        export_tflite(model, tmp_path / "w.tflite", **OPTIONS)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (
            lambda image: layers.Activation("sparsemax", name="sparse")(layers.Dense(4)(image)),
            ExportError,
            "TFLM has no .* of layer 'sparse'",
        ),
        (
            lambda image: layers.Flatten()(layers.Embedding(9, 3, name="lookup")(image)),
            ValueError,
            "'lookup'",
        ),
    ],
)
def test_what_tflm_does_not_have_is_refused_by_layer(build, error, words, tmp_path):
    image = keras.Input(
        (8,), dtype="int32" if "Embedding" in str(build.__code__.co_names) else None
    )
    float_model = keras.Model(image, layers.Dense(4, name="head")(build(image)))
    images = RANDOM.integers(0, 9, (24, 8)).astype(image.dtype)
    model = trained(model=float_model, images=images)
    with pytest.raises(error, match=words):
        export_tflite(model, tmp_path / "x.tflite", **{**OPTIONS, "calibrate_with": images})


def test_open_sizes_and_a_missing_extra_are_refused_before_any_work(tmp_path, monkeypatch):
    image = keras.Input((None, 8, 3), name="image")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="conv")(image))
    model = trained(model=keras.Model(image, layers.Dense(4, name="head")(x)))
    with pytest.raises(ValueError, match=r"input 'image' of shape \(None, None, 8, 3\)"):
        export_tflite(model, tmp_path / "x.tflite", **OPTIONS)
    monkeypatch.setattr(operators, "is_installed", lambda: False)
    # The commands know the same way out by the module's name.
    with pytest.raises(ModuleNotFoundError, match=re.escape(HINTS["tflite_micro"])):
        export_tflite(model, tmp_path / "x.tflite", **OPTIONS)


def test_images_and_sequences_are_upsampled(tmp_path):
    inputs = keras.Input((8, 8, 2))
    x = layers.UpSampling2D((2, 3))(layers.Conv2D(4, 3, padding="same")(inputs))
    x = layers.UpSampling1D(2)(layers.Reshape((24, 64))(x))
    model = quantize_model(keras.Model(inputs, layers.Conv1D(1, 3)(x)), (4, 8))
    images = np.random.default_rng(0).random((16, 8, 8, 2), "float32")
    data = {"calibrate_with": images, "verify_with": images}
    report = export_tflite(model, tmp_path / "up.tflite", optimize_for="micro", **data)
    assert "RESIZE_NEAREST_NEIGHBOR" in report.micro.operators
    assert report.parity.holds


def test_the_report_is_plain_data(written):
    told = json.loads(json.dumps(written.to_dict()))
    assert told["micro"]["arena"]["bytes"] == written.micro.arena.bytes
