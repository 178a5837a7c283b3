"""Files that LiteRT runs: packed, and equal to Keras."""

import os

import keras
import numpy as np
import pytest
from conftest import small_data, small_model
from trained_models import packed_tensors, trained, with_widths

from bmpq_tf import (
    FloatKernelsWarning,
    SkippedLayersWarning,
    export_tflite,
    quantize_model,
)
from bmpq_tf.export import stages
from bmpq_tf.export.converter.convert import to_float_tflite
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.verification import comparison
from bmpq_tf.model.kernels import model_kernels

IMAGES, LABELS = small_data()


@pytest.mark.parametrize(
    ("bits", "granularity"),
    [
        (2, "tensor"),
        (3, "channel"),
        pytest.param(4, "tensor", marks=pytest.mark.slow),
        pytest.param(5, "tensor", marks=pytest.mark.slow),
        pytest.param(8, "channel", marks=pytest.mark.slow),
    ],
)
def test_every_width_is_packed_and_answers_as_keras_does(bits, granularity, tmp_path):
    model = trained(with_widths(small_model(), [bits], granularity=granularity))
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=IMAGES)
    container = {2: 2, 3: 4, 4: 4, 5: 8, 8: 8}[bits]
    assert [layer.stored_bits for layer in report.layers] == [container] * 4
    assert all(bool(layer.note) == (container != bits) for layer in report.layers)
    assert report.parity.agreement == 1.0
    assert report.parity.max_abs_diff <= 1e-4 * max(0.01, report.parity.logit_scale)
    tensors = packed_tensors(tmp_path / "model.tflite")
    assert sorted(width for width, _, _ in tensors.values()) == [container] * 4
    scales = sorted(len(tensor.quantization.scale) for _, _, tensor in tensors.values())
    assert scales == sorted(state.kernel.channels for state in model_kernels(model))
    weights = sum(layer.weights for layer in report.layers)
    assert weights * container / 8 <= report.packed_weight_bytes <= weights * container / 8 + 4
    assert report.tflite_bytes == os.path.getsize(tmp_path / "model.tflite")


def test_the_integers_in_the_file_are_the_models(tmp_path):
    model = trained(with_widths(small_model(), [2, 4, 8, 2]))
    export_tflite(model, tmp_path / "model.tflite")
    stored = [
        sorted(np.abs(values.astype(int)).reshape(-1))
        for _, values, _ in packed_tensors(tmp_path / "model.tflite").values()
    ]
    ours = [
        sorted(
            np.abs(np.asarray(state.quantizer.integers(state.variable.value)).astype(int)).reshape(
                -1
            )
        )
        for state in model_kernels(model)
    ]
    for integers in ours:
        assert integers in stored


@pytest.mark.slow
def test_a_folded_batchnorm_with_negative_gamma_keeps_the_lowest_level(tmp_path):
    model = trained(with_widths(small_model(), [2]))
    gamma = model.get_layer("bn").gamma
    gamma.assign(np.float32([-1.0, 0.7, -0.3, 1.2]))
    stem = next(state for state in model_kernels(model) if state.layer.name == "stem")
    stem.variable.assign(3 * stem.variable.numpy())
    assert np.asarray(stem.quantizer.integers(stem.variable.value)).min() == -2
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=IMAGES)
    assert report.layers[0].stored_bits == 2
    points = [
        np.asarray(tensor.quantization.zeroPoint)
        for _, _, tensor in packed_tensors(tmp_path / "model.tflite").values()
    ]
    assert any((zero == -1).any() for zero in points)


@pytest.mark.parametrize("multiplication", ["batchnorm", "layernorm"])
def test_a_multiplication_fused_into_dense_columns_is_taken_out_again(multiplication, tmp_path):
    inputs = keras.Input((12,))
    norm = (
        keras.layers.BatchNormalization()
        if multiplication == "batchnorm"
        else keras.layers.LayerNormalization()
    )
    x = norm(keras.layers.ReLU()(inputs))
    x = keras.layers.Dense(8, name="wide")(x)
    model = with_widths(keras.Model(inputs, keras.layers.Dense(3, name="head")(x)), [2, 4])
    norm = next(layer for layer in model.layers if "normalization" in layer.name)
    norm.gamma.assign(np.linspace(-1, 2, 12).astype("float32"))
    data = np.random.default_rng(0).standard_normal((20, 12)).astype("float32")
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=data)
    assert [layer.stored_bits for layer in report.layers] == [2, 4]


def test_shared_layers_nested_models_and_several_inputs_and_outputs(tmp_path):
    one, two = keras.Input((6,), name="b_one"), keras.Input((4,), name="a_two")
    shared = keras.layers.Dense(5, name="shared")
    inner_input = keras.Input((6,))
    inner = keras.Model(
        inner_input,
        keras.layers.Dense(6, activation="relu", name="inner_dense")(inner_input),
        name="inner",
    )
    x = keras.layers.Concatenate()([shared(one), shared(inner(one)), two])
    outputs = {
        "z": keras.layers.Dense(3, name="first_out")(x),
        "a": keras.layers.Dense(2, name="second_out")(x),
    }
    model = with_widths(keras.Model([one, two], outputs), [4, 2])
    generator = np.random.default_rng(0)
    data = [generator.standard_normal((9, size)).astype("float32") for size in (6, 4)]
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=data)
    assert {layer.stored_bits for layer in report.layers} == {2, 4}
    assert report.parity.examples == 9
    file = flatbuffer.parse((tmp_path / "model.tflite").read_bytes())
    (signature,) = file.signatureDefs
    assert [entry.name for entry in signature.inputs] == [b"b_one", b"a_two"]
    # In the order of the sorted keys.
    assert [entry.name for entry in signature.outputs] == [b"a", b"z"]
    tensors = [file.subgraphs[0].tensors[entry.tensorIndex] for entry in signature.outputs]
    assert [int(tensor.shape[1]) for tensor in tensors] == [2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_of_mixed_precision_computes_in_float32_in_the_file(policy, tmp_path):
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, activation="relu", dtype=policy, name="conv")(inputs)
    x = keras.layers.Reshape((16, 4), dtype=policy)(x)
    x = keras.layers.MultiHeadAttention(1, 4, dtype=policy, name="attention")(x, x)
    model = keras.Model(
        inputs,
        keras.layers.Dense(3, dtype=policy, name="head")(
            keras.layers.GlobalAveragePooling1D(dtype=policy)(x)
        ),
    )
    model = trained(with_widths(model, [4, 2]))
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=IMAGES)
    assert report.parity.max_abs_diff <= 1e-4 * max(0.01, report.parity.logit_scale)
    assert {layer.stored_bits for layer in report.layers} == {2, 4}
    assert model.get_layer("conv").compute_dtype == policy.removeprefix("mixed_")


@pytest.mark.slow
def test_layers_that_hold_others_of_16_bits_compute_in_float32_in_the_file(tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((6, 6, 2))
        x = keras.layers.Pipeline([keras.layers.Rescaling(0.5), keras.layers.RandomFlip()])(inputs)
        x = keras.layers.SpectralNormalization(keras.layers.Conv2D(4, 3))(x)
        x = keras.layers.Flatten()(x)
        model = keras.Model(inputs, keras.layers.Dense(3, dtype="float32", name="head")(x))
        with pytest.warns(SkippedLayersWarning):
            quantized = quantize_model(model, (4,), pin=None)
        report = export_tflite(quantized, tmp_path / "model.tflite", verify_with=IMAGES)
    finally:
        keras.config.set_dtype_policy(before)
    assert report.parity.holds


def test_odd_numbers_of_weights_pack(tmp_path):
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(1, name="b")]
    )
    report = export_tflite(with_widths(model, [2, 4]), tmp_path / "model.tflite")
    assert [layer.stored_bits for layer in report.layers] == [2, 4]
    assert report.parity.generated


def test_a_kernel_that_stays_float_says_so(tmp_path):
    model = quantize_model(small_model(), (2,), exclude="hidden", pin=None)
    report = export_tflite(model, tmp_path / "model.tflite")
    assert {layer.name: layer.stored_bits for layer in report.layers}["hidden/kernel"] == 32


def test_a_kernel_that_is_lost_in_conversion_is_warned_of(tmp_path, monkeypatch):
    model = with_widths(small_model(), [4])
    honest = stages.find
    monkeypatch.setattr(
        stages,
        "find",
        lambda *given: [match for match in honest(*given) if match.kernel.layer != "hidden"],
    )
    with pytest.warns(
        FloatKernelsWarning,
        match=r"Kernels 'hidden/kernel' are no constants.* take 3,072 bytes in place of 384\. Name",
    ) as caught:
        report = export_tflite(model, tmp_path / "model.tflite")
    assert [warning.filename for warning in caught if warning.category is FloatKernelsWarning] == [
        __file__
    ]
    (told,) = [layer for layer in report.layers if layer.name == "hidden/kernel"]
    assert (told.stored_bits, told.note) == (
        32,
        "not found as a constant of the converted model, so it stays float",
    )


@pytest.mark.slow
def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = trained(with_widths(small_model(), [2, 4]))
    for name in ("a", "b"):
        export_tflite(model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.slow
def test_normalised_kernels_are_exported_as_trained_and_come_back(tmp_path):
    model = trained(
        with_widths(small_model(), [2, 3, 8, 4], normalise_kernels=True, initial_scale="mse")
    )
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=IMAGES)
    assert [layer.bits for layer in report.layers] == [2, 3, 8, 4]
    assert report.parity.agreement == 1.0
    assert report.parity.max_abs_diff <= 1e-4 * max(0.01, report.parity.logit_scale)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        keras.models.load_model(tmp_path / "model.keras").predict(IMAGES, verbose=0),
        model.predict(IMAGES, verbose=0),
    )


def test_each_output_is_judged_by_its_own_size():
    inputs = keras.Input((4,))
    boxes, scores = keras.layers.Rescaling(1000.0)(inputs), keras.layers.Rescaling(0.1)(inputs)
    model = keras.Model(inputs, [boxes, scores])
    data = np.random.default_rng(0).standard_normal((20, 4)).astype("float32")

    def judged(model, kind, batch, received):
        tally = comparison._Tally(model, to_float_tflite(model), kind)
        tally.add([batch], comparison.keras_answers(model, [batch]), received, xnnpack=True)
        return tally.parity(len(batch), False, None)

    result = judged(model, "size", data, [1000 * data, 0.1 * data + 0.01])
    assert "differ from Keras's by up to 0.01 " in result.problem
    assert result.logit_scale < 1
    turned = [1000 * data, np.where(np.arange(20)[:, None] < 5, -0.1, 0.1) * data]
    assert judged(model, "latency", data, turned).agreement == 0.75
    # Two of few may always differ, and hide nothing of another output.
    x = keras.layers.Flatten()(inputs)
    steps = keras.Model(inputs, [keras.layers.RepeatVector(40)(x), x])
    signs = np.where(np.arange(40)[:, None] < 6, -1, 1)
    repeated = np.repeat(data[:10, None], 40, 1)
    many = [repeated * signs, data[:10] * np.where(np.arange(10)[:, None] < 2, -1, 1)]
    assert judged(steps, "latency", data[:10], many).agreement == 0.85
