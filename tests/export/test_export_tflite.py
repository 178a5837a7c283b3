"""Files that LiteRT runs: packed, equal to Keras, and absent when anything is wrong."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled, small_data, small_model

from bmpq_tf import (
    ExportError,
    FloatKernelsWarning,
    QuantizationConfig,
    export_tflite,
    quantize_model,
)
from bmpq_tf.export import checks, stages
from bmpq_tf.export.converter.convert import to_float_tflite
from bmpq_tf.export.errors import ConversionError
from bmpq_tf.export.kernels import packing
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.interpreter import predict
from bmpq_tf.export.verification import comparison
from bmpq_tf.model.kernels import model_kernels

IMAGES, LABELS = small_data()


def with_widths(model, widths, **settings):
    """Quantizes a model, gives its kernels these widths in turn, and trains it for a moment so that
    BatchNorm is real.
    """
    quantized = quantize_model(
        model, (2, 3, 4, 5, 8), pin=None, config=QuantizationConfig(**settings)
    )
    states = model_kernels(quantized)
    for number, state in enumerate(states):
        state.quantizer.set_width(widths[number % len(widths)], state.variable)
    return quantized


def trained(model):
    compiled(model).fit(IMAGES, LABELS, epochs=2, verbose=0)
    return model


def packed_tensors(path):
    model = flatbuffer.parse(path.read_bytes())
    found = {}
    for tensor in model.subgraphs[0].tensors:
        if tensor.type in flatbuffer.PACKED_BITS and flatbuffer.constant(model, tensor) is not None:
            found[flatbuffer.tensor_name(tensor)] = (
                flatbuffer.PACKED_BITS[tensor.type],
                flatbuffer.constant(model, tensor),
                tensor,
            )
    return found


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


@pytest.mark.parametrize(
    "form", [dict, lambda inputs: iter([(inputs, LABELS)])], ids=["dict", "batches"]
)
def test_inputs_by_name_are_taken_in_the_models_order(form, tmp_path):
    query, doc = keras.Input((6,), name="query"), keras.Input((6,), name="doc")
    outputs = keras.layers.Dense(3, name="head")(
        keras.layers.Concatenate()([query, keras.layers.Rescaling(100.0)(doc)])
    )
    model = with_widths(keras.Model([query, doc], outputs), [8])
    generator = np.random.default_rng(0)
    arrays = {
        "doc": generator.uniform(0, 1, (8, 6)).astype("float32"),
        "query": generator.uniform(0, 100, (8, 6)).astype("float32"),
    }
    path = tmp_path / "model.tflite"
    export_tflite(
        model, path, optimize_for="integer", calibrate_with=form(arrays), verify_with=form(arrays)
    )
    (answers,) = predict(path.read_bytes(), [[arrays["query"], arrays["doc"]]])
    np.testing.assert_allclose(
        answers, model([arrays["query"], arrays["doc"]]), atol=0.03 * np.abs(answers).max()
    )


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("size", np.asarray),
        pytest.param("integer", lambda images: iter([(images,)]), marks=pytest.mark.slow),
    ],
)
def test_a_fixed_batch_size_is_kept_and_any_number_of_examples_judged(mode, form, tmp_path):
    inputs = keras.Input((6, 6, 2), batch_size=3)
    x = keras.layers.Reshape((36, 2))(
        keras.layers.Conv2D(2, 1, activation="relu", name="conv")(inputs)
    )
    model = with_widths(keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x))), [8])
    path = tmp_path / "model.tflite"
    more = {"calibrate_with": form(IMAGES)} if mode == "integer" else {}
    report = export_tflite(model, path, optimize_for=mode, verify_with=form(IMAGES), **more)
    assert report.parity.examples == len(IMAGES) // 3 * 3 < len(IMAGES)
    (answers,) = predict(path.read_bytes(), [[IMAGES]])
    assert answers.shape == (len(IMAGES), 3)
    np.testing.assert_array_equal(answers[-1], predict(path.read_bytes(), [[IMAGES[-3:]]])[0][-1])
    assert export_tflite(model, path, overwrite=True).parity.generated
    with pytest.raises(ValueError, match="not a whole batch"):
        export_tflite(model, path, verify_with=IMAGES[:2], overwrite=True)


@pytest.mark.slow
def test_one_channel_may_be_left_out_as_keras_allows(tmp_path):
    model = with_widths(
        keras.Sequential([keras.Input((4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]), [4]
    )
    values = np.random.default_rng(0).standard_normal((5, 4)).astype("float32")
    for given in (values, values[..., None]):
        assert (
            export_tflite(
                model, tmp_path / "model.tflite", verify_with=given, overwrite=True
            ).parity.examples
            == 5
        )


@pytest.mark.slow
def test_random_inputs_are_large_enough_for_the_poolings_of_images_of_open_size(tmp_path):
    inputs = x = keras.Input((None, None, 2))
    for _ in range(5):
        x = keras.layers.MaxPooling2D()(keras.layers.Conv2D(2, 3, padding="same")(x))
    model = with_widths(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)), [4])
    assert export_tflite(model, tmp_path / "model.tflite").parity.generated


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


def test_answers_that_differ_leave_no_file(tmp_path, monkeypatch):
    model = with_widths(small_model(), [4])
    honest = packing.stored_kernel

    def wrong_scales(match, name, shape, container):
        kernel = honest(match, name, shape, container)
        kernel.scales[0] *= 1.5
        return kernel

    monkeypatch.setattr(packing, "stored_kernel", wrong_scales)
    monkeypatch.setattr(stages, "check_constants", lambda *given: None)
    with pytest.raises(ExportError, match="answers differ from Keras's by up to"):
        export_tflite(model, tmp_path / "model.tflite", verify_with=IMAGES)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_small_answers_are_compared_too(tmp_path, monkeypatch):
    inputs = keras.Input((6,))
    model = with_widths(
        keras.Model(
            inputs, keras.layers.Rescaling(1e-4)(keras.layers.Dense(3, name="dense")(inputs))
        ),
        [4],
    )
    data = np.random.default_rng(0).standard_normal((20, 6)).astype("float32")
    assert (
        export_tflite(model, tmp_path / "good.tflite", verify_with=data).parity.logit_scale < 1e-3
    )
    honest = packing.stored_kernel

    def wrong_scales(*given):
        kernel = honest(*given)
        kernel.scales[0] *= 1.5
        return kernel

    monkeypatch.setattr(packing, "stored_kernel", wrong_scales)
    # The answers alone show it too.
    monkeypatch.setattr(stages, "check_constants", lambda *given: None)
    with pytest.raises(ExportError, match="more than the 1e-06 that rounding explains"):
        export_tflite(model, tmp_path / "bad.tflite", verify_with=data)


def test_integers_that_differ_leave_no_file(tmp_path, monkeypatch):
    model = with_widths(small_model(), [4])
    honest = packing.pack

    def corrupted(file, pairs):
        content = honest(file, pairs)
        tensor = next(t for t in content.subgraphs[0].tensors if t.type in flatbuffer.PACKED_BITS)
        data = np.array(content.buffers[tensor.buffer].data)
        data[0] ^= 1
        content.buffers[tensor.buffer].data = data
        return content

    monkeypatch.setattr(packing, "pack", corrupted)
    with pytest.raises(ExportError, match="does not hold the integers of kernel"):
        export_tflite(model, tmp_path / "model.tflite", verify_with=IMAGES)
    assert not list(tmp_path.iterdir())


def test_nan_from_the_runtime_is_a_difference(tmp_path, monkeypatch):
    model = with_widths(small_model(), [4])
    honest = comparison.TFLiteModel.__call__
    monkeypatch.setattr(
        comparison.TFLiteModel,
        "__call__",
        lambda self, inputs: [output * np.nan for output in honest(self, inputs)],
    )
    with pytest.raises(ExportError, match="answers NaN or infinity"):
        export_tflite(model, tmp_path / "model.tflite", verify_with=IMAGES)


@pytest.mark.parametrize("name", ["kernel", "bias"])
def test_a_model_whose_training_ran_away_is_refused_before_any_work(name, tmp_path):
    model = with_widths(small_model(), [4])
    variable = {one.path: one for one in model.variables}[f"hidden/{name}"]
    variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(ValueError, match=rf"ran away.*'hidden/{name}'\. Train it again"):
        export_tflite(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_an_export_over_budget_is_refused(tmp_path):
    model = with_widths(small_model(), [8])
    with pytest.raises(
        ValueError, match=r"over its budget.*Received: budget='10x'; the model is 4.00x"
    ):
        export_tflite(model, tmp_path / "model.tflite", budget="10x")
    record = {
        "epoch": 1,
        "status": "optimal",
        "bits": 2,
        "sensitivity": 1.0,
        "enbg": 1.0,
        "budget": {"compression": 12},
    }
    for state in model_kernels(model):
        state.quantizer.history = (record,)
    with pytest.raises(ValueError, match="budget='12x'"):
        export_tflite(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_more_weights_than_a_file_holds_are_refused_before_the_conversion(tmp_path, monkeypatch):
    model = with_widths(small_model(), [2])
    weights = sum(state.kernel.weights for state in model_kernels(model))
    monkeypatch.setattr(flatbuffer, "LARGEST_BYTES", 4 * weights - 1)
    monkeypatch.setattr(stages, "to_float_model", lambda model: pytest.fail("Converted."))
    message = (
        rf"Received: {weights:,} weights, {4 * weights:,} bytes; the limit is "
        rf"{4 * weights - 1:,}\. .* is 'hidden/kernel' with 768\."
    )
    with pytest.raises(ValueError, match=message):
        export_tflite(model, tmp_path / "model.tflite")


def test_a_memory_that_is_full_is_no_fault_of_the_model(tmp_path, monkeypatch):
    def full(*given, **more):
        raise MemoryError

    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", full)
    with pytest.raises(MemoryError):
        export_tflite(with_widths(small_model(), [4]), tmp_path / "model.tflite")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            np.zeros((2, 5, 5, 2), "float32"),
            r"do not fit model 'small', which takes .*Received: \[\(2, 5, 5, 2\)\]",
        ),
        (np.full((2, 6, 6, 2), np.nan, "float32"), "hold NaN"),
        pytest.param(iter([]), "has no examples", marks=pytest.mark.slow),
        (iter([IMAGES[:0]]), "has no examples"),
        (
            tf.data.Dataset.from_tensor_slices(IMAGES).batch(4).repeat(),
            r"verify_with are endless.*data.take\(10\)",
        ),
    ],
)
def test_inputs_that_cannot_verify_are_named(data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_tflite(with_widths(small_model(), [4]), tmp_path / "model.tflite", verify_with=data)
    assert not list(tmp_path.iterdir())


def test_empty_batches_are_left_out(tmp_path):
    batches = [IMAGES[:0], IMAGES[:3], IMAGES[:0]]
    path, given = (
        tmp_path / "model.tflite",
        {"verify_with": iter(batches), "calibrate_with": iter(batches)},
    )
    assert (
        export_tflite(
            with_widths(small_model(), [8]), path, optimize_for="integer", **given
        ).parity.examples
        == 3
    )


def test_paths_that_cannot_be_written_are_refused_first(tmp_path):
    model = with_widths(small_model(), [4])
    (tmp_path / "there.tflite").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export_tflite(model, tmp_path / "there.tflite")
    assert (tmp_path / "there.tflite").read_text() == "mine"
    export_tflite(model, tmp_path / "there.tflite", overwrite=True)
    assert (tmp_path / "there.tflite").read_bytes()[4:8] == b"TFL3"
    with pytest.raises(IsADirectoryError, match="is a folder"):
        export_tflite(model, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match="Nothing can be written"):
        checks.check_writable(tmp_path / "file" / "model.tflite")


def test_a_layer_without_a_builtin_is_named(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Bessel(keras.layers.Layer):
        def call(self, inputs):
            return tf.math.bessel_i0(inputs)

    inputs = keras.Input((4,))
    model = quantize_model(
        keras.Model(inputs, Bessel(name="odd")(keras.layers.Dense(3)(inputs))), pin=None
    )
    with pytest.raises(
        ConversionError, match=r"no builtin for tf.BesselI0 of layer 'odd' \(Bessel\)\."
    ):
        export_tflite(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


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


@pytest.mark.slow
def test_masked_layers_that_go_backwards_answer_step_by_step_too(tmp_path):
    tokens = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(10, 4, mask_zero=True)(tokens)
    x = keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True))(x)
    x = keras.layers.GRU(3, go_backwards=True, return_sequences=True, zero_output_for_mask=True)(x)
    model = with_widths(keras.Model(tokens, keras.layers.Dense(2)(x)), [8])
    data = np.random.default_rng(0).integers(1, 10, (8, 6)) * (
        np.arange(6) < np.arange(1, 9)[:, None]
    )
    before = model(data)
    assert export_tflite(model, tmp_path / "model.tflite", verify_with=data).parity.examples == 8
    np.testing.assert_array_equal(model(data), before)


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
