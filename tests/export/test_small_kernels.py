"""Kernels that other constants resemble: one channel, one weight a channel, equal values.

And what else reads a kernel.
"""

import json

import keras
import numpy as np
import pytest
from conftest import small_data

from bmpq_tf import ExportError, export_tflite, quantize_model
from bmpq_tf.export.kernels import levels, packing
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.layers import QuantDense, QuantEmbedding
from bmpq_tf.model.kernels import model_kernels

MODES = ("size", "latency", "integer")
layers = keras.layers


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def exported(model, folder, mode, inputs):
    """Exports, and checks that the tensors that are said to hold a kernel hold its integers."""
    calibration = {"calibrate_with": inputs} if mode == "integer" else {}
    report = export_tflite(
        model,
        folder / "model.tflite",
        optimize_for=mode,
        verify_with=inputs,
        overwrite=True,
        **calibration,
    )
    file = flatbuffer.parse((folder / "model.tflite").read_bytes())
    constants = {
        flatbuffer.tensor_name(tensor): flatbuffer.constant(file, tensor)
        for tensor in file.subgraphs[0].tensors
    }
    told = {
        kernel["name"]: kernel["tensors"]
        for kernel in json.loads(flatbuffer.metadata(file)["bmpq_tf"])["kernels"]
    }
    for state in model_kernels(model):
        if state.quantizer:
            assert told[state.kernel.path], state.kernel.path
        for name in told[state.kernel.path] if isinstance(state.layer, QuantDense) else ():
            trained = np.transpose(state.quantizer.integers(state.variable.value))
            factor = levels.factor_in_int8(trained) if mode == "integer" else 1
            np.testing.assert_array_equal(constants[name], factor * trained)
    return report


def sine():
    dense = [layers.Dense(16, activation="relu") for _ in range(2)]
    return keras.Sequential([keras.Input((1,)), *dense, layers.Dense(1)]), normal(64, 1)


def heads():
    inputs = keras.Input((12,))
    x = layers.Dense(16, activation="relu")(inputs)
    return keras.Model(inputs, [layers.Dense(1)(x) for _ in range(3)]), normal(64, 12)


def adapted():
    norm = layers.Normalization()
    norm.adapt(normal(100, 8) * 3 + 5)
    inputs = keras.Input((8,))
    return keras.Model(inputs, layers.Dense(1)(norm(inputs))), normal(32, 8) * 3 + 5


def slopes():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same")(inputs)
    x = layers.PReLU(
        shared_axes=[1, 2],
        alpha_initializer=keras.initializers.RandomUniform(0.1, 0.3, seed=1),
        name="slopes",
    )(x)
    return keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling2D()(x))), normal(
        32, 8, 8, 3
    )


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        (make, mode)
        for make in (sine, heads, adapted, slopes)
        for mode in MODES
        if mode != "integer" or make in (sine, heads)
    ],
)
def test_vectors_are_found_among_constants_of_their_size(make, mode, tmp_path):
    model, inputs = make()
    report = exported(
        quantize_model(model, exclude="slopes" if make is slopes else None), tmp_path, mode, inputs
    )
    assert [
        layer.stored_bits for layer in report.layers if not layer.name.startswith("slopes")
    ] == [8] * (len(report.layers) - (make is slopes))


def one_channel(layer):
    inputs = keras.Input((8, 8, 1))
    x = layers.ReLU()(
        layers.BatchNormalization(moving_variance_initializer=keras.initializers.Constant(0.5))(
            layer(inputs)
        )
    )
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(
    ("mode", "layer"),
    [
        ("size", lambda: layers.DepthwiseConv2D(3, use_bias=False)),
        ("latency", lambda: layers.DepthwiseConv2D(3, use_bias=False, depth_multiplier=3)),
        ("integer", lambda: layers.SeparableConv2D(4, 3, use_bias=False)),
    ],
    ids=["depthwise", "multiplied", "separable"],
)
def test_a_depthwise_kernel_of_one_channel_is_read_as_weights(layer, mode, tmp_path):
    report = exported(
        quantize_model(one_channel(layer()), (4,), pin=None), tmp_path, mode, normal(16, 8, 8, 1)
    )
    first = report.layers[0]
    assert first.stored_bits == (4 if mode == "size" else 8)
    assert (
        first.note
        == {
            "size": "",
            "latency": (
                "DEPTHWISE_CONV_2D has no faster kernel for integer weights beside float "
                "inputs, so they are dequantized when loaded"
            ),
            "integer": "stored in int8, which every integer kernel reads",
        }[mode]
    )


@pytest.mark.parametrize("mode", ["size", "integer"])
def test_equal_kernels_are_one_constant_and_both_are_told_of(mode, tmp_path):
    inputs = keras.Input((6,))
    same = keras.initializers.RandomNormal(seed=3)
    x = layers.Concatenate()(
        [layers.Dense(4, kernel_initializer=same)(of) for of in (inputs, layers.ReLU()(inputs))]
    )
    report = exported(
        quantize_model(keras.Model(inputs, layers.Dense(3)(x)), (4,), pin=None),
        tmp_path,
        mode,
        normal(40, 6),
    )
    one, other, _ = report.layers
    assert one.stored_bits == other.stored_bits <= 8
    assert (one.note, one.compute) == (other.note, other.compute)
    assert mode != "size" or one.stored_bits == 4


@pytest.mark.parametrize("mode", ["size", "integer"])
def test_an_einsum_may_sum_in_the_order_of_its_input(mode, tmp_path):
    inputs = keras.Input((4, 5))
    model = quantize_model(
        keras.Model(
            inputs, layers.EinsumDense("abc,cbd->ad", output_shape=(6,), name="turned")(inputs)
        ),
        (4,),
        pin=None,
    )
    exported(model, tmp_path, mode, normal(16, 4, 5))
    file = flatbuffer.parse((tmp_path / "model.tflite").read_bytes())
    ((state,), kinds) = model_kernels(model), flatbuffer.PACKED_BITS
    (stored,) = [
        values
        for t in file.subgraphs[0].tensors
        if t.type in kinds and (values := flatbuffer.constant(file, t)) is not None
    ]
    np.testing.assert_array_equal(
        # Of 4 bits int8 holds multiples.
        stored.reshape(6, 4, 5) // (15 if mode == "integer" else 1),
        np.transpose(state.quantizer.integers(state.variable.value), (2, 1, 0)),
    )


def zero(units, name, **more):
    return layers.Dense(units, kernel_initializer="zeros", name=name, **more)


def zero_head():
    inputs = keras.Input((8,))
    return keras.Model(inputs, zero(8, "dense_1")(layers.Dense(8, name="dense")(inputs))), normal(
        16, 8
    )


def zeros_of_two_shapes():
    """Two buffers' worth of the same bytes."""
    inputs = keras.Input((8,))
    x = layers.Dense(16, activation="relu")(inputs)
    return keras.Model(
        inputs,
        layers.Concatenate()([zero(8, "one")(x), zero(16, "other")(layers.ReLU()(inputs)), x]),
    ), normal(16, 8)


def zero_head_and_bias():
    inputs = keras.Input((6, 6, 2))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, activation="relu")(inputs))
    return keras.Model(inputs, zero(1, "head")(x)), normal(16, 6, 6, 2)


def silenced_branches():
    """Kernels of one sign, so that no zero of the folded ones has another."""
    inputs = keras.Input((6, 6, 4))
    branches = [inputs]
    for _ in range(2):
        x = layers.ReLU()(inputs) if len(branches) > 1 else inputs
        x = layers.Conv2D(
            4,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer=keras.initializers.RandomUniform(0.1, 1),
        )(x)
        branches.append(
            layers.BatchNormalization(gamma_initializer="zeros", beta_initializer="ones")(x)
        )
    return keras.Model(
        inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Add()(branches)))
    ), normal(16, 6, 6, 4)


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        (zero_head, "size"),
        (zeros_of_two_shapes, "latency"),
        (zero_head_and_bias, "integer"),
        (silenced_branches, "size"),
        pytest.param(silenced_branches, "integer", marks=pytest.mark.slow),
        pytest.param(zeros_of_two_shapes, "integer", marks=pytest.mark.slow),
    ],
)
def test_zeros_are_packed_and_taken_for_no_other_kernel(make, mode, tmp_path):
    model, inputs = make()
    report = exported(quantize_model(model, (4,), pin=None), tmp_path, mode, inputs)
    assert all(
        layer.stored_bits == 4 if mode == "size" else layer.stored_bits <= 8
        for layer in report.layers
    )
    assert "not found" not in "".join(layer.note for layer in report.layers)


def test_zeros_of_several_kernels_lie_in_the_width_of_the_widest(tmp_path):
    inputs = keras.Input((8,))
    x = layers.Concatenate()([zero(4, "one")(inputs), zero(4, "other")(layers.ReLU()(inputs))])
    model = quantize_model(
        keras.Model(inputs, layers.Dense(3)(x)), (4,), pin=None, overrides={"one": 2}
    )
    report = exported(model, tmp_path, "size", normal(16, 8))
    assert [layer.stored_bits for layer in report.layers] == [4, 4, 4]
    assert [layer.note for layer in report.layers] == [
        "one constant with a wider kernel of the same values",
        "",
        "",
    ]


def test_a_file_with_a_constant_of_another_size_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "separate_buffers", lambda *given: None)
    model, inputs = zero_head_and_bias()
    with pytest.raises(ExportError, match=r"is of another size than its tensor\. Nothing"):
        exported(quantize_model(model, (4,), pin=None), tmp_path, "size", inputs)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["size", "integer"])
def test_features_that_folding_silenced_do_not_hide_a_kernel(mode, tmp_path):
    inputs = keras.Input((12,))
    norm = layers.BatchNormalization()
    model = quantize_model(keras.Model(inputs, layers.Dense(4)(norm(layers.ReLU()(inputs)))))
    gamma = np.linspace(-1.0, 2.0, 12, dtype="float32")
    gamma[3] = 0.0
    next(
        layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)
    ).gamma.assign(gamma)
    (told,) = exported(model, tmp_path, mode, normal(40, 12)).layers
    assert (told.stored_bits, told.note) == (8, "")


@keras.saving.register_keras_serializable("tests")
class TokenAndPlace(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.tokens, self.places = (
            QuantEmbedding(size, 16, quantizer={"candidate_bits": (4, 8)}) for size in (50, 10)
        )

    def call(self, inputs):
        return self.tokens(inputs) + self.places(keras.ops.arange(10))


@pytest.mark.parametrize("mode", ["size", "integer"])
def test_a_table_that_is_added_lies_on_one_grid_in_integer_files(mode, tmp_path):
    words = keras.Input((10,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(TokenAndPlace()(words))
    model = keras.Model(words, QuantDense(4, quantizer={"candidate_bits": (8,)})(x))
    report = exported(
        model, tmp_path, mode, np.random.default_rng(0).integers(0, 50, (64, 10)).astype("int32")
    )
    if mode == "integer":
        assert "on one grid, as ADD reads it" in report.layers[1].note


def test_the_largest_of_integers_is_one_of_them(tmp_path):
    images, _ = small_data()
    inputs = keras.Input((6, 6, 2))
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs))
    report = exported(
        quantize_model(keras.Model(inputs, layers.Dense(3)(x))), tmp_path, "integer", images
    )
    assert report.parity.rms < 0.02


def test_rows_that_were_joined_count_as_rows(tmp_path):
    inputs = keras.Input((197, 16))
    x = layers.Dense(32, activation="relu", name="many")(inputs)
    x = layers.Dense(4, name="few")(layers.Flatten()(layers.AveragePooling1D(197)(x)))
    model = quantize_model(keras.Model(inputs, x), (4,), pin=None)
    assert (
        min(np.min(state.quantizer.integers(state.variable)) for state in model_kernels(model)) > -8
    ), "-8 alone rules int4 out"
    report = exported(model, tmp_path, "latency", normal(4, 197, 16))
    assert {layer.name: layer.stored_bits for layer in report.layers} == {
        "many/kernel": 8,
        "few/kernel": 4,
    }
