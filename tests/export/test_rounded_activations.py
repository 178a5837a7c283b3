"""Files of models that round activations.

The same roundings, and nothing but ties between the runtimes.
"""

import keras
import numpy as np
import pytest
from conftest import compiled, sequence_model, small_data, small_model

from bmpq_tf import ExportError, export_tflite, quantize_model
from bmpq_tf.export import stages
from bmpq_tf.export.kernels import packing
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.inner_tensors import Exposed
from bmpq_tf.export.verification import comparison, rounding_ties
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer

IMAGES, LABELS = small_data()
ROUND = flatbuffer.schema.BuiltinOperator.ROUND


def trained(bits):
    model = compiled(quantize_model(small_model(), (4,), activation_bits=bits, pin="ends"))
    model.fit(IMAGES, LABELS, epochs=2, verbose=0)
    return model


@pytest.mark.parametrize(
    "bits",
    [pytest.param(8, marks=pytest.mark.slow), 4, pytest.param(2, marks=pytest.mark.slow)],
)
def test_the_file_rounds_as_keras_does(bits, tmp_path):
    model = trained(bits)
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=IMAGES)
    assert report.parity.unexplained_diff <= 1e-4 * max(0.01, report.parity.logit_scale)
    assert report.parity.agreement == 1
    assert [layer.stored_bits for layer in report.layers] == [8, 4, 4, 8]
    file = flatbuffer.parse((tmp_path / "model.tflite").read_bytes())
    codes = [
        file.operatorCodes[operator.opcodeIndex].builtinCode
        for operator in file.subgraphs[0].operators
    ]
    # The image, the ReLU, the depthwise convolution's output, the hidden layer's ReLU.
    assert codes.count(ROUND) == 4
    # The BatchNorm went into the convolution, the steps into the kernels behind them.
    assert codes.count(flatbuffer.schema.BuiltinOperator.MUL) == 4
    assert not any("Flex" in str(code.customCode) for code in file.operatorCodes)


def at_the_edges(twice=False):
    """A model most of whose values lie on edges between two steps, as exactly as float32 can have
    it.
    """
    inputs = keras.Input((64,))
    x = keras.layers.Dense(64, use_bias=False, name="spread")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    one, other = keras.layers.ReLU(name="relu")(x), keras.layers.ReLU(name="other")(x)
    x = keras.layers.Concatenate()([one, other]) if twice else one
    model = quantize_model(
        keras.Model(inputs, keras.layers.Dense(4, name="head")(x)), (8,), activation_bits=8
    )
    generator = np.random.default_rng(0)
    data = generator.standard_normal((64, 64)).astype("float32")
    model(data, training=True)
    norm = model.get_layer("bn")
    norm.moving_variance.assign(generator.uniform(0.5, 2, 64).astype("float32"))
    # The input's own integers, spread by powers of two, fall on multiples of half a step.
    spread = model.get_layer("spread")
    spread._kernel.assign(np.eye(64, dtype="float32"))
    spread.kernel_quantizer.initialise_scale(spread._kernel)
    step_in = float(spread.input_quantizer.clip()) / 255
    for name in ("relu", "other") if twice else ("relu",):
        model.get_layer(name).activation_quantizer.first_range.assign([1.0, 0.0])
    norm.gamma.assign(
        np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
        / 255
        / 2
        / step_in
        / np.diag(spread.kernel)
    )
    norm.moving_mean.assign(np.zeros(64, "float32"))
    return model, data


@pytest.mark.slow
def test_ties_are_told_and_followed_and_nothing_else_passes(tmp_path, monkeypatch):
    model, data = at_the_edges()
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=data)
    assert report.parity.ties > 0
    assert report.parity.max_abs_diff > report.parity.tolerance >= report.parity.unexplained_diff
    assert all(
        quantizer.rounding is comparison.tf.round
        for quantizer in comparison.activation_quantizers(model)
    )
    # Without following, or with a kernel before the rounding that is a little off, there is no
    # file.
    monkeypatch.setattr(
        comparison.Following, "_rounding", lambda self, *arguments: comparison.tf.round
    )
    with pytest.raises(ExportError, match="answers differ from Keras's by up to"):
        export_tflite(model, tmp_path / "other.tflite", verify_with=data)
    monkeypatch.undo()
    # What compares constants would find it first.
    monkeypatch.setattr(stages, "check_constants", lambda *arguments: None)
    honest = packing.stored_kernel

    def slightly_wrong(match, name, shape, container):
        kernel = honest(match, name, shape, container)
        if match.kernel.layer == "spread":
            kernel.scales[:] *= 1.01
        return kernel

    monkeypatch.setattr(packing, "stored_kernel", slightly_wrong)
    with pytest.raises(ExportError, match="answers differ from Keras's by up to"):
        export_tflite(model, tmp_path / "other.tflite", verify_with=data)
    assert not (tmp_path / "other.tflite").exists()


def test_equal_roundings_that_the_converter_makes_one_are_followed_both(tmp_path):
    model, data = at_the_edges(twice=True)
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=data)
    assert report.parity.max_abs_diff > report.parity.tolerance >= report.parity.unexplained_diff
    _, tensors = Exposed((tmp_path / "model.tflite").read_bytes())([data])
    assert (
        sum(rounding_ties.use_of(name) is not None for name in tensors)
        == len(comparison.activation_quantizers(model)) - 1
    )


def layouts():
    """A Conv1D, behind which the converter moves a reshape, and attention, with its transposes."""
    inputs = keras.Input((8, 6))
    x = keras.layers.Conv1D(6, 3, padding="same", name="conv")(inputs)
    x = keras.layers.Add()([keras.layers.ReLU(name="relu")(x), inputs])
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    outputs = keras.layers.Dense(3, name="head")(keras.layers.Flatten()(x))
    return quantize_model(keras.Model(inputs, outputs), activation_bits=8)


def test_roundings_that_the_converter_renames_and_turns_are_found(tmp_path):
    model = layouts()
    data = np.random.default_rng(0).standard_normal((5, 8, 6)).astype("float32")
    model(data, training=True)
    export_tflite(model, tmp_path / "model.tflite", verify_with=data)
    content = (tmp_path / "model.tflite").read_bytes()
    rounded = rounding_ties.rounded_tensors(content)
    assert any(rounding_ties.use_of(name) is None for name in rounded)
    tensors = Exposed(content, wanted=rounded.__contains__)([data])[1]
    given = {name: values for name, values in tensors.items() if name in rounded}
    # The output of the attention's heads: (examples, heads, steps, size) in the file.
    assert any(values.shape == (5, 2, 8, 3) for values in given.values())
    following = rounding_ties.Following(model, 1e-4)
    with following.taking(given):
        model(data)
    assert following.departed == ""
    name = next(name for name in given if rounding_ties.use_of(name) is None)
    wrong = given[name].copy()
    wrong.reshape(-1)[-1] += 3
    with following.taking({**given, name: wrong}):
        model(data)
    assert "The first rounding that differs is '" in following.departed


@pytest.mark.parametrize(
    "turn",
    [
        lambda values: values.transpose(0, 2, 1, 3),
        lambda values: values.reshape(6, 1, 4, 5),
        lambda values: values.reshape(6, 20).T,
        lambda values: values.reshape(2, 3, 20).transpose(0, 2, 1),
    ],
)
def test_a_rounding_is_found_in_every_order_of_its_axes(turn):
    values = np.random.default_rng(0).uniform(-99, 99, (2, 3, 4, 5)).astype("float32")
    other = np.random.default_rng(1).uniform(-99, 99, (120,)).astype("float32")
    given = {"other": np.round(other), "its": turn(np.round(values))}
    found = rounding_ties._rounding_of(values, given, (0, 0), 0.01)
    np.testing.assert_array_equal(found, np.round(values))
    assert rounding_ties._rounding_of(values, {"other": np.round(other)}, (0, 0), 0.01) is None


@pytest.mark.slow
def test_a_tolerance_of_ones_own_serves_files_that_compute_as_keras_does(tmp_path, monkeypatch):
    model, data = at_the_edges()
    monkeypatch.setattr(
        comparison.Following, "_rounding", lambda self, *arguments: comparison.tf.round
    )
    with pytest.raises(ExportError, match=r"that rounding explains.*say so with tolerance="):
        export_tflite(model, tmp_path / "model.tflite", verify_with=data)
    with pytest.raises(ExportError, match=r"more than the 1e-07 that tolerance= allows"):
        export_tflite(model, tmp_path / "model.tflite", verify_with=data, tolerance=1e-7)
    assert not list(tmp_path.iterdir())
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=data, tolerance=0.05)
    assert 1e-7 < report.parity.rms <= 0.05


def test_a_shared_relu_and_a_nested_model_round_at_every_use(tmp_path):
    relu = keras.layers.ReLU(name="shared_relu")
    inner_input = keras.Input((6,))
    inner = keras.Model(
        inner_input, relu(keras.layers.Dense(6, name="inner_dense")(inner_input)), name="inner"
    )
    inputs = keras.Input((6,))
    x = relu(keras.layers.Dense(6, name="first")(inputs))
    model = quantize_model(
        keras.Model(
            inputs,
            keras.layers.Dense(3, name="head")(keras.layers.Add()([inner(x), inner(inputs)])),
        ),
        activation_bits=8,
    )
    data = np.random.default_rng(0).standard_normal((99, 6)).astype("float32")
    model(data, training=True)
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=data)
    assert report.parity.unexplained_diff <= report.parity.tolerance
    _, tensors = Exposed((tmp_path / "model.tflite").read_bytes())([data])
    uses = [use for name in tensors if (use := rounding_ties.use_of(name))]
    assert len(uses) == len(set(uses)) == 7


def test_a_range_that_no_batch_has_set_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"'.*input_quantizer' has no range yet.*Train the model first"
    ):
        export_tflite(quantize_model(small_model(), activation_bits=8), tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_layers_inside_layers_round_alike_from_training_to_the_file(tmp_path):
    data = np.random.default_rng(0).standard_normal((16, 4, 5)).astype("float32")
    model = compiled(quantize_model(sequence_model(), (4,), activation_bits=4))
    model.fit(data, LABELS[:16], epochs=2, verbose=0)
    quantizers = [
        layer for layer in model._flatten_layers() if isinstance(layer, ActivationQuantizer)
    ]
    assert len(quantizers) == 7
    assert all(quantizer.has_range and quantizer.log_clip.numpy() != 0 for quantizer in quantizers)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for mine, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=mine.path)
    report = export_tflite(loaded, tmp_path / "model.tflite", verify_with=data)
    assert report.parity.holds
    assert {layer.stored_bits for layer in report.layers} == {4, 8}
