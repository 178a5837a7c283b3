"""Layers that round activations.

Their config, their files, what training does to their clips, and what nothing does.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmpq_tf import layers, quantize_model
from bmpq_tf.layers import QuantizerConfig
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer

MAKERS = {
    "relu": lambda **k: layers.QuantReLU(bits=4, **k),
    "relu6": lambda **k: layers.QuantReLU(6.0, bits=2, **k),
    "identity": lambda **k: layers.QuantIdentity(bits=4, **k),
    "dense": lambda **k: layers.QuantDense(
        3, activation="relu", quantizer={"activation_bits": 4, "input_bits": 8}, **k
    ),
    "conv": lambda **k: layers.QuantConv1D(
        3, 2, activation="relu6", quantizer={"activation_bits": 2, "input_bits": 4}, **k
    ),
}
X = np.random.default_rng(0).standard_normal((8, 4, 5)).astype("float32")


def quantizers(model) -> list[ActivationQuantizer]:
    return [part for part in model._flatten_layers() if isinstance(part, ActivationQuantizer)]


def built(name, **compile_arguments):
    """A model whose first layer is trained too, so that a clip is all but certain to cut something
    off in the second step.
    """
    inputs = keras.Input(X.shape[1:])
    model = keras.Model(
        inputs, MAKERS[name](name="layer")(keras.layers.Dense(5, name="before")(inputs))
    )
    model.compile(
        **{
            "optimizer": keras.optimizers.SGD(0.1),
            "loss": "mse",
            "jit_compile": False,
            **compile_arguments,
        }
    )
    return model


def fit(model, scale=1.0):
    model.fit(scale * X, np.ones((8, *model.output_shape[1:]), "float32"), verbose=0)


@pytest.mark.parametrize("name", MAKERS)
def test_config_round_trip(name):
    layer = MAKERS[name](name="layer")
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    ranges = [
        [
            (q.bits, q.signed, q.limit)
            for q in one._flatten_layers()
            if isinstance(q, ActivationQuantizer)
        ]
        for one in (layer, again)
    ]
    assert ranges[0] == ranges[1] != []


@pytest.mark.parametrize("name", MAKERS)
def test_training_moves_every_clip_and_files_give_back_every_bit_of_state(name, tmp_path):
    model = built(name)
    fit(model)
    assert len(quantizers(model)) == (2 if name in ("dense", "conv") else 1)
    starts = [float(quantizer.first_range[0]) for quantizer in quantizers(model)]
    fit(model, scale=3)
    for quantizer, start in zip(quantizers(model), starts, strict=True):
        assert quantizer.has_range
        assert float(quantizer.first_range[0]) == start
        assert float(quantizer.log_clip.value) != 0, quantizer.path
        assert float(quantizer.clip()) > 0
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = built(name)
    fresh.load_weights(tmp_path / "model.weights.h5")
    for other in (keras.models.load_model(tmp_path / "model.keras"), fresh):
        for mine, theirs in zip(model.weights, other.weights, strict=True):
            np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=mine.path)
        np.testing.assert_array_equal(model(X), other(X))


def test_a_range_of_three_variables_is_read_as_one():
    """As files of bmpq_tf 0.1 have it."""
    quantizer = ActivationQuantizer(4, signed=True)
    quantizer.build()
    for observed in (1.0, 0.0):
        store = dict(zip("0123", np.float32([0.3, 2.0, 5.0, observed]), strict=True))
        quantizer.load_own_variables(store)
        assert quantizer.log_clip.numpy() == np.float32(0.3)
        assert quantizer.first_range.numpy().tolist() == [2 * observed, 5 * observed]


def test_before_a_training_batch_each_batch_has_its_own_range_and_nothing_is_kept():
    layer = layers.QuantReLU(bits=8)
    for scale in (1.0, 100.0):
        np.testing.assert_allclose(
            layer(scale * X), np.maximum(scale * X, 0), atol=scale * X.max() / 255
        )
    assert not layer.activation_quantizer.has_range
    layer(X, training=True)
    assert np.max(layer(100 * X)) <= X.max() * (1 + 1e-6)


@pytest.mark.parametrize("nothing", [0.0, np.nan])
def test_a_first_batch_without_a_range_is_passed_over(nothing):
    layer = layers.QuantIdentity(bits=4)
    layer(nothing * X, training=True)
    assert not layer.activation_quantizer.has_range
    layer(X, training=True)
    assert layer.activation_quantizer.has_range
    assert len(np.unique(layer(X))) > 8


def test_relu6_never_passes_6_and_a_clip_stays_positive_whatever_the_optimizer_does():
    layer = layers.QuantReLU(6.0, bits=4)
    layer(X, training=True)
    for log_clip, largest in ((50.0, 6.0), (-30.0, 1e-6)):
        layer.activation_quantizer.log_clip.assign(log_clip)
        assert 0 < np.max(layer(100 * X)) <= largest * (1 + 1e-6)


def test_under_float16_the_range_is_float32_and_the_answer_float16():
    layer = layers.QuantDense(
        3,
        activation="relu",
        quantizer={"activation_bits": 8, "input_bits": 8},
        dtype="mixed_float16",
    )
    answer = layer(X, training=True)
    assert keras.backend.standardize_dtype(answer.dtype) == "float16"
    assert {
        variable.dtype
        for quantizer in layer.activation_quantizers()
        for variable in quantizer.variables
    } == {"float32"}
    plain = keras.layers.Dense(3, activation="relu")
    plain.build(X.shape)
    plain.set_weights([layer._kernel.numpy(), layer.bias.numpy()])
    np.testing.assert_allclose(answer, plain(X), atol=0.1)


def test_a_frozen_layer_keeps_its_clip_but_finds_its_range():
    model = built("relu")
    model.get_layer("layer").trainable = False
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    fit(model)
    fit(model, scale=3)
    (quantizer,) = quantizers(model)
    assert quantizer.has_range
    assert float(quantizer.log_clip.value) == 0


@pytest.mark.parametrize("bits", [3, 1, 0, 32, "8", True, 4.0])
def test_widths_of_activations_are_checked(bits):
    for make in (
        lambda: layers.QuantReLU(bits=bits),
        lambda: QuantizerConfig(activation_bits=bits),
        lambda: QuantizerConfig(input_bits=bits),
    ):
        with pytest.raises(ValueError, match=r"must be None \(float\), 16, 8, 4 or 2. Received: "):
            make()


def test_a_layer_without_a_width_and_a_leaky_relu_are_refused():
    with pytest.raises(ValueError, match="Give 16, 8, 4 or 2"):
        layers.QuantIdentity(bits=None)
    with pytest.raises(ValueError, match="Put QuantIdentity behind a leaky ReLU"):
        layers.QuantReLU(negative_slope=0.1)


def test_a_config_from_before_activations_were_quantized_still_loads():
    old = {
        key: value
        for key, value in QuantizerConfig().to_dict().items()
        if key not in ("activation_bits", "input_bits")
    }
    assert QuantizerConfig.of({**old, "version": 1}) == QuantizerConfig()


def test_the_clip_gets_a_damped_gradient_so_that_it_does_not_outrun_the_weights():
    layer = layers.QuantReLU(bits=2)
    layer(X, training=True)
    quantizer = layer.activation_quantizer
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(X))
    cut_off = np.sum(float(quantizer.clip()) <= X)
    # 4 x 5 values an example, 3 steps.
    expected = cut_off * float(quantizer.clip()) / np.sqrt(20 * 3)
    assert float(tape.gradient(loss, quantizer.log_clip.value)) == pytest.approx(expected, rel=1e-5)


def test_steps_of_unknown_number_with_rounded_activations_are_refused():
    inputs = keras.Input((None, 6))
    steps = keras.layers.TimeDistributed(keras.layers.Dense(4, activation="relu"))(inputs)
    model = quantize_model(
        keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(steps)), activation_bits=8
    )
    model.compile("sgd", "mse", jit_compile=False)
    values = np.random.default_rng(0).standard_normal((8, 5, 6)).astype("float32")
    model.fit(values, np.zeros((8, 4)), verbose=0)
    unknown = (tf.TensorSpec((None, None, 6)), tf.TensorSpec((None, 4)))
    data = tf.data.Dataset.from_generator(
        lambda: [(values, np.zeros((8, 4), "float32"))], output_signature=unknown
    )
    with pytest.raises(
        ValueError,
        match=(
            r"rounds activations at every step.*Received: inputs of shape \(None, None, 6\). "
            r"Give data of a fixed"
        ),
    ):
        model.fit(data, shuffle=False, verbose=0)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("maximum", [None, 6.0])
def test_training_leaves_the_relu_to_the_quantizer_and_learns_the_same(maximum, policy):
    """The range, the answers and the gradients are those of a ReLU and a quantizer behind it."""
    values = tf.cast(4 * X, "float32" if policy == "float32" else "bfloat16")

    def learned(layer, before):
        layer(values, training=True)
        quantizer = layer.activation_quantizer
        quantizer.log_clip.assign(-0.7)
        with tf.GradientTape() as tape:
            tape.watch(values)
            out = layer(before(values), training=True)
            loss = tf.reduce_sum(tf.cast(out, "float32") ** 2)
        return [out, quantizer.clip(), *tape.gradient(loss, [values, quantizer.log_clip.value])]

    fused = learned(layers.QuantReLU(maximum, bits=4, dtype=policy), lambda values: values)
    apart = learned(
        layers.QuantReLU(maximum, bits=4, dtype=policy),
        lambda values: keras.ops.relu(values) if maximum is None else keras.ops.relu6(values),
    )
    assert float(fused[1]) < 6
    for one, other in zip(fused, apart, strict=True):
        np.testing.assert_allclose(
            keras.ops.cast(one, "float32"), keras.ops.cast(other, "float32"), rtol=1e-6
        )


def test_a_relu_with_a_threshold_keeps_it_in_training():
    layer = layers.QuantReLU(threshold=1.0, bits=8)
    assert not np.any((layer(X, training=True) > 0) & (layer(X, training=True) < 0.99))


def test_whole_numbers_pass_as_they_are():
    quantizer = ActivationQuantizer(8)
    quantizer.build()
    numbers = tf.constant([0, 7, 255])
    np.testing.assert_array_equal(quantizer.call(numbers, training=True), numbers)
    assert not quantizer.has_range
    relu = layers.QuantReLU()
    np.testing.assert_array_equal(relu(tf.constant([-3, 4]), training=True), [0, 4])


def test_rounded_activations_are_computed_anew_where_a_remat_scope_says():
    with keras.RematScope("full"):
        inputs = keras.Input((4,))
        x = keras.layers.ReLU()(keras.layers.Dense(3)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model = quantize_model(model, activation_bits=8, pin=None)
    model.compile("sgd", "mse", jit_compile=False)
    told = model.fit(np.ones((4, 4)), np.ones((4, 2)), epochs=2, verbose=0).history["loss"]
    assert np.isfinite(told).all()


def test_a_part_that_is_called_without_training_finds_its_range_where_it_trains():
    class Transfer(keras.Model):
        def __init__(self):
            super().__init__()
            self.frozen, self.back, self.head = (keras.layers.Dense(4) for _ in range(3))

        def call(self, x):
            return self.head(self.back(self.frozen(x, training=False), training=False))

    model = Transfer()
    data = np.random.default_rng(0).standard_normal((16, 4)).astype("float32")
    model(data)
    model = quantize_model(model, activation_bits=8, pin=None)
    model.frozen.trainable = False
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(data, data, verbose=0)
    assert all(layer.input_quantizer.has_range for layer in (model.back, model.head))
    unseen = ActivationQuantizer(8, signed=True)
    unseen.build()
    with pytest.raises(ValueError, match="a part that is frozen and called with training=False"):
        unseen.freeze(is_trained=True)
