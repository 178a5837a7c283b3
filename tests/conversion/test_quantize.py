"""From float models to quantized ones and back: which layers are quantized, which pinned."""

import contextlib
import math

import keras
import numpy as np
import pytest
from conftest import candidates, compiled, pinned, sequence_model, small_data, small_model

from bmpq_tf import (
    BMPQCallback,
    QuantizationConfig,
    dequantize_model,
    kernel_table,
    layers,
    quantize_model,
)
from bmpq_tf.model.keras_graph import first_and_last, quantized_layers, sublayers
from bmpq_tf.model.kernels import model_kernels


def widths(model) -> dict[str, tuple[int, ...]]:
    return {state.layer.name: state.kernel.candidates for state in model_kernels(model)}


def test_a_functional_model_keeps_names_weights_and_nearly_its_answers():
    model = small_model()
    quantized = quantize_model(model)
    assert [layer.name for layer in quantized.layers] == [layer.name for layer in model.layers]
    assert [type(quantized.get_layer(name)) for name in ("stem", "depthwise", "hidden")] == [
        layers.QuantConv2D,
        layers.QuantDepthwiseConv2D,
        layers.QuantDense,
    ]
    for name in ("stem", "hidden"):
        np.testing.assert_array_equal(
            quantized.get_layer(name)._kernel, model.get_layer(name).kernel
        )
    np.testing.assert_array_equal(quantized.get_layer("bn").gamma, model.get_layer("bn").gamma)
    images, _ = small_data()
    np.testing.assert_allclose(quantized(images), model(images), atol=0.15)


def test_first_and_last_are_pinned_and_the_rest_open():
    assert widths(quantize_model(small_model(), (2, 3), pin="ends")) == {
        "stem": (8,),
        "depthwise": (2, 3),
        "hidden": (2, 3),
        "head": (8,),
    }
    assert pinned(quantize_model(small_model(), pin=None)) == set()
    assert pinned(quantize_model(small_model(), pin="hidden")) == {"hidden"}
    assert widths(
        quantize_model(
            small_model(), (2, 4), pin=("last",), config=QuantizationConfig(pinned_bits=6)
        )
    )["head"] == (6,)


def test_a_kernel_has_one_learned_scale_unless_channels_are_asked_for():
    def sizes(model):
        return {
            state.layer.name: math.prod(state.quantizer.log_gain.shape)
            for state in model_kernels(model)
        }

    assert sizes(quantize_model(small_model())) == {
        "stem": 1,
        "depthwise": 1,
        "hidden": 1,
        "head": 1,
    }
    assert sizes(
        quantize_model(small_model(), config=QuantizationConfig(granularity="channel"))
    ) == {
        "stem": 4,
        "depthwise": 8,
        "hidden": 6,
        "head": 3,
    }


def branched() -> keras.Model:
    one, two = keras.Input((4,), name="one"), keras.Input((4,), name="two")
    a = keras.layers.Dense(4, name="a")(one)
    b = keras.layers.Dense(4, name="b")(two)
    shared = keras.layers.Dense(4, name="shared")
    inner_input = keras.Input((4,))
    inner = keras.Model(
        inner_input, keras.layers.Dense(4, name="inner_dense")(inner_input), name="inner"
    )
    joined = keras.layers.Add()([shared(a), shared(b), two])
    x = inner(joined)
    return keras.Model(
        [one, two], [keras.layers.Dense(2, name="left")(x), keras.layers.ReLU()(x)], name="branched"
    )


def test_branches_have_several_first_and_last_layers_even_inside_nested_models():
    first, last = first_and_last(branched())
    # A path leads around a and b: input two reaches the nested model directly.
    assert {layer.name for layer in first} == {"a", "b", "inner_dense"}
    assert {layer.name for layer in last} == {"left", "inner_dense"}


def test_nested_models_and_shared_layers_stay_what_they_are():
    model = branched()
    quantized = quantize_model(model)
    assert {layer.name for layer in quantized_layers(quantized)} == {
        "a",
        "b",
        "shared",
        "inner_dense",
        "left",
    }
    assert isinstance(quantized.get_layer("inner").get_layer("inner_dense"), layers.QuantDense)
    assert len(quantized.get_layer("shared")._inbound_nodes) == 2
    inputs = [np.ones((2, 4), "float32")] * 2
    for ours, theirs in zip(quantized(inputs), model(inputs), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.1)


def test_a_sequential_model_stays_sequential():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, name="a"),
            keras.layers.Dense(3, name="b"),
            keras.layers.Dense(1, name="c"),
        ]
    )
    quantized = quantize_model(model, pin="ends")
    assert isinstance(quantized, keras.Sequential)
    assert pinned(quantized) == {"a", "c"}


def test_layers_that_hold_layers_are_quantized_inside_and_back():
    model = sequence_model()
    config = QuantizationConfig(granularity="channel")
    quantized = quantize_model(model, (2, 4), config=config, pin="ends")
    found = candidates(quantized)
    assert list(found) == [
        *(f"attention/{name}/kernel" for name in ("query", "key", "value", "attention_output")),
        "wide/kernel",
        "narrow/kernel",
        *(
            f"{direction}_lstm/lstm_cell/{kernel}"
            for direction in ("forward", "backward")
            for kernel in ("kernel", "recurrent_kernel")
        ),
        "head/kernel",
    ]
    # Attention stands at the input, as one layer.
    assert [path for path, bits in found.items() if bits == (8,)] == [
        *list(found)[:4],
        "head/kernel",
    ]
    data = np.random.default_rng(0).standard_normal((3, 4, 5)).astype("float32")
    np.testing.assert_allclose(quantized(data), model(data), atol=0.05)
    plain = dequantize_model(quantized)
    assert not [part for part in sublayers(plain) if type(part).__module__.startswith("bmpq")]
    np.testing.assert_allclose(plain(data), quantized(data), atol=1e-6)


def test_pins_reach_into_wrapped_models():
    inner = keras.Sequential(
        [keras.Input((5,)), *(keras.layers.Dense(5, name=name) for name in "abc")]
    )
    inputs = keras.Input((4, 5))
    model = keras.Model(inputs, keras.layers.TimeDistributed(inner)(inputs))
    assert pinned(quantize_model(model, pin="ends")) == {"a", "c"}


def test_dequantize_gives_plain_keras_layers_on_the_grid(tmp_path):
    model = quantize_model(small_model(), (2, 4))
    for state in model_kernels(model):
        if state.is_open:
            state.quantizer.set_width(2, state.variable)
    images, labels = small_data()
    compiled(model).fit(images, labels, verbose=0)
    plain = dequantize_model(model)
    assert not quantized_layers(plain)
    assert all(type(layer).__module__.startswith("keras.") for layer in plain.layers)
    np.testing.assert_allclose(plain(images), model(images), rtol=1e-5, atol=1e-6)
    assert len(np.unique(np.asarray(plain.get_layer("hidden").kernel)[:, 0])) <= 4
    plain.save(tmp_path / "plain.keras")
    assert b"bmpq" not in (tmp_path / "plain.keras").read_bytes()
    latent = dequantize_model(model, on_grid=False)
    assert not quantized_layers(latent)
    for state in model_kernels(model):
        _, attribute = state.kernel.path.rsplit("/", 1)
        np.testing.assert_array_equal(
            getattr(latent.get_layer(state.layer.name), attribute).numpy(), state.variable.numpy()
        )
    assert len(np.unique(latent.get_layer("hidden").kernel)) > 4


def test_latent_weights_are_those_that_were_rounded():
    model = quantize_model(small_model(), (2, 4), config=QuantizationConfig(normalise_kernels=True))
    kernel = np.asarray(dequantize_model(model, on_grid=False).get_layer("hidden").kernel)
    (state,) = (state for state in model_kernels(model) if state.layer.name == "hidden")
    np.testing.assert_allclose(
        kernel, state.variable.numpy() - state.variable.numpy().mean(0), atol=1e-6
    )


def test_kernels_of_one_path_in_two_nested_models_have_widths_of_their_own():
    def tower(name):
        inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Dense(4, name="dense")(inputs), name=name)

    inputs = keras.Input((4,))
    both = keras.layers.Add()([tower("left")(inputs), tower("right")(inputs)])
    model = compiled(quantize_model(keras.Model(inputs, both), pin=None), loss="mse")
    paths = [state.kernel.path for state in model_kernels(model)]
    assert paths == ["dense/kernel", "dense/kernel#2"]
    data = np.random.default_rng(0).standard_normal((8, 4)).astype("float32")
    model.fit(
        data,
        data,
        epochs=2,
        verbose=0,
        callbacks=[BMPQCallback("10.6x", settle_epochs=1, verbose=0)],
    )
    assert sorted(state.bits for state in model_kernels(model)) == [2, 4]


def test_a_mask_makes_no_layer_the_first():
    tokens = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(10, 4, mask_zero=True, name="words")(tokens)
    for name in ("lower", "upper"):
        x = keras.layers.LSTM(4, return_sequences=name == "lower", name=name)(x)
    model = keras.Model(tokens, keras.layers.Dense(2, name="head")(x))
    assert pinned(quantize_model(model, pin="ends")) == {"words", "head"}

    x = keras.layers.GlobalAveragePooling1D()(
        keras.layers.Embedding(10, 4, mask_zero=True, name="words")(tokens)
    )
    x = keras.layers.Dense(4, name="hidden")(x)
    model = keras.Model(tokens, keras.layers.Dense(2, name="head")(x))
    assert pinned(quantize_model(model, pin="ends")) == {"words", "head"}

    features, allowed = keras.Input((5, 4)), keras.Input((5, 5), dtype="bool")
    x = keras.layers.Dense(4, name="stem")(features)
    x = keras.layers.MultiHeadAttention(1, 4, name="attention")(x, x, attention_mask=allowed)
    model = keras.Model([features, allowed], keras.layers.Dense(2, name="head")(x))
    assert pinned(quantize_model(model, pin="ends")) == {"stem", "head"}


def test_a_nested_model_that_is_called_by_name_reads_its_own_inputs():
    first, second = keras.Input((3,), name="z"), keras.Input((3,), name="a")
    outputs = keras.layers.Add()(
        [keras.layers.Dense(3, name="of_z")(first), keras.layers.Dense(3, name="of_a")(second)]
    )
    tower = keras.Model([first, second], outputs)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(3, name="hidden", activation="relu")(inputs)
    model = keras.Model(
        inputs, keras.layers.Dense(2, name="head")(tower({"z": hidden, "a": inputs}))
    )
    quantized = quantize_model(model, activation_bits=4, pin="ends")
    assert pinned(quantized) == {"hidden", "of_a", "head"}
    reads = {
        layer.name: layer.input_quantizer and layer.input_quantizer.bits
        for layer in quantized_layers(quantized)
    }
    assert (reads["of_z"], reads["of_a"]) == (None, 8)


def test_a_nested_model_may_be_called_with_a_constant():
    first, second = keras.Input((4,)), keras.Input((4,))
    inner = keras.Model([first, second], keras.layers.Dense(3, name="of_both")(first * second))
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(2)(inner([inputs, keras.ops.ones((1, 4))]))
    quantized = quantize_model(keras.Model(inputs, outputs), activation_bits=8, pin=None)
    assert [row.path for row in kernel_table(quantized)] == ["of_both/kernel", "dense/kernel"]


@pytest.mark.parametrize("mode", ["full", "activations"])
def test_layers_compute_anew_what_a_remat_scope_says_and_measure_the_same(mode):
    data = np.random.default_rng(0).standard_normal((16, 6, 6, 2)).astype("float32")

    def measured(scope):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6, 6, 2))
        with scope:
            convolution = keras.layers.Conv2D(8, 3, activation="relu", name="convolution")
            head = keras.layers.Dense(3, name="head")
        outputs = head(keras.layers.GlobalAveragePooling2D()(convolution(inputs)))
        model = quantize_model(keras.Model(inputs, outputs), activation_bits=8, pin=None)
        model.compile("sgd", "mse", jit_compile=False)
        model.train_on_batch(data, np.ones((16, 3), "float32"))
        return model, [state.quantizer.accumulated().bit_gradient for state in model_kernels(model)]

    plain, expected = measured(contextlib.nullcontext())
    again, found = measured(keras.RematScope(mode=mode))
    assert plain.get_layer("convolution")._remat_mode is None
    assert again.get_layer("convolution")._remat_mode.mode == mode
    np.testing.assert_allclose(found, expected, rtol=1e-4)
