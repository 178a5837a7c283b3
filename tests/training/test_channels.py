"""Channels that are dropped: which go together, and that the smaller model is the larger one
without them.
"""

from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

import bmpq_tf
from bmpq_tf.allocation.budget import Budget
from bmpq_tf.model.channel_groups import channel_groups
from bmpq_tf.model.kernels import model_kernels, total_bits
from bmpq_tf.training import channels

L = keras.layers
IMAGES = np.random.default_rng(0).standard_normal((32, 8, 8, 4)).astype("float32")
LABELS = np.arange(32) % 5
CONFIG = bmpq_tf.QuantizationConfig((2, 4, 8), activation_bits=8)


def conv_bn(x, filters, name):
    x = L.Conv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
    return L.ReLU()(L.BatchNormalization()(x))


def chain(inputs):
    x = conv_bn(inputs, 16, "first")
    x = L.MaxPooling2D()(conv_bn(x, 24, "second"))
    return L.GlobalAveragePooling2D()(x)


def residual(inputs):
    x = conv_bn(inputs, 16, "stem")
    branch = L.Conv2D(16, 3, padding="same", name="out")(conv_bn(x, 24, "inner"))
    return L.GlobalAveragePooling2D()(L.ReLU()(L.Add()([x, branch])))


def depthwise(inputs):
    x = conv_bn(inputs, 16, "wide")
    x = L.ReLU()(L.BatchNormalization()(L.DepthwiseConv2D(3, name="each")(x)))
    return L.Flatten()(L.Conv2D(8, 1, activation="relu", name="point")(x))


def nested(inputs):
    """A part of the network is a model of its own, which holds a model itself."""
    images = keras.Input((8, 8, 4))
    features = keras.Input((8, 8, 16))
    tail = keras.Model(features, conv_bn(conv_bn(features, 24, "inner"), 16, "end"), name="tail")
    backbone = keras.Model(images, tail(conv_bn(images, 16, "start")), name="backbone")
    x = L.Conv2D(12, 1, activation="relu", name="outer")(backbone(inputs))
    return L.GlobalAveragePooling2D()(x)


def made(body, config=CONFIG, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 4))
    return bmpq_tf.quantize_model(
        keras.Model(inputs, L.Dense(5, name="head")(body(inputs))), config=config, **options
    )


def trained(body, config=CONFIG, **options):
    model = made(body, config, **options)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    model.fit(IMAGES, LABELS, batch_size=16, verbose=0)
    return model


def names_of(model):
    return {group.name: group.stays for group in channel_groups(model).groups}


def test_a_chain_has_a_group_for_each_layer_and_the_output_stays():
    assert names_of(made(chain)) == {
        "first": "",
        "second": "",
        "head": "they are an output of the model",
    }


def test_batch_normalization_may_name_the_last_axis_by_its_number():
    def body(inputs):
        x = L.Conv2D(16, 3, name="first")(inputs)
        return L.GlobalAveragePooling2D()(L.ReLU()(L.BatchNormalization(axis=3)(x)))

    assert names_of(made(body))["first"] == ""


def test_what_a_sum_adds_up_goes_together():
    (whole, inner, _) = channel_groups(made(residual)).groups
    assert {layer.name for layer in whole.makers} == {"stem", "out"}
    assert len(whole.readers) == 2
    assert inner.name == "inner"


def test_models_inside_keep_the_channels_that_they_are_given_and_give():
    assert names_of(made(nested)) == {
        "start": "they are an input of model 'tail'",
        "inner": "",
        "end": "they are an output of model 'tail'",
        "outer": "",
        "head": "they are an output of the model",
    }


def test_what_is_added_to_the_output_of_a_model_inside_stays():
    def body(inputs):
        images = keras.Input((8, 8, 4))
        inner = keras.Model(images, L.Conv2D(8, 3, name="end")(images), name="inner")
        x = L.Add()([L.Conv2D(8, 3, name="beside")(inputs), inner(inputs)])
        return L.GlobalAveragePooling2D()(x)

    assert names_of(made(body))["beside"] == "they are an output of model 'inner'"


def test_a_tensor_may_be_added_twice():
    def body(inputs):
        x, y = (L.Conv2D(8, 3, name=name)(inputs) for name in "xy")
        return L.GlobalAveragePooling2D()(L.Add()([x, y, L.ReLU()(y)]))

    assert list(names_of(made(body))) == ["x + y", "head"]


def test_flatten_reads_each_channel_at_every_position():
    model = made(depthwise)
    found = channel_groups(model)
    assert [sorted(group.readers.values()) for group in found.groups] == [[1], [36], []]
    assert found.made[id(model.get_layer("each"))] == 0


@pytest.mark.parametrize(
    ("body", "granularity"),
    [(chain, "channel"), (residual, "tensor"), (depthwise, "tensor"), (nested, "channel")],
)
def test_the_smaller_model_is_the_larger_one_without_what_it_dropped(body, granularity):
    # One width each, so that no scale starts anew.
    config = bmpq_tf.QuantizationConfig((4,), activation_bits=8, granularity=granularity)
    model = trained(body, config, pin=None)
    bits = total_bits(model_kernels(model))
    with mock.patch.object(channels, "_without", wraps=channels._without) as cut:
        smaller = bmpq_tf.drop_channels(model, f"{0.6 * bits / 8} B", verbose=0)
    assert total_bits(model_kernels(smaller)) <= 0.6 * bits
    (_, groups, kept), _ = cut.call_args
    dropped = 0
    # As if nobody read what was dropped.
    for group, channels_kept in zip(groups.groups, kept, strict=True):
        gone = np.setdiff1d(np.arange(group.size), channels_kept)
        dropped += len(gone)
        for state in model_kernels(model):
            positions = np.arange(group.readers.get(id(state.layer), 0))[:, None] * group.size
            values = np.asarray(state.variable).copy()
            values[..., (positions + gone).ravel(), :] = 0
            state.variable.assign(values)
    assert dropped > 0
    np.testing.assert_allclose(
        smaller.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0), atol=2e-5
    )


def test_it_trains_on_under_the_budget_and_its_files_are_smaller(tmp_path):
    model = trained(residual)
    smaller = bmpq_tf.drop_channels(model, "20x", verbose=0)
    size = total_bits(model_kernels(smaller))
    assert size <= 32 * sum(state.kernel.weights for state in model_kernels(model)) / 20
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    smaller.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    callback = bmpq_tf.BMPQCallback(Budget(weight_bytes=size / 8), verbose=0)
    smaller.fit(IMAGES, LABELS, epochs=3, verbose=0, callbacks=[callback])
    sizes = {}
    for name, made in {"whole": model, "smaller": smaller}.items():
        report = bmpq_tf.export_tflite(
            made, tmp_path / name, optimize_for="integer", calibrate_with=IMAGES, verify_with=IMAGES
        )
        sizes[name] = report.tflite_bytes
    assert sizes["smaller"] < 0.8 * sizes["whole"]


def test_the_least_sensitive_channels_go():
    model = trained(chain)
    batch_norm = next(one for one in model.layers if isinstance(one, L.BatchNormalization))
    strong = np.arange(16) % 2 == 0
    batch_norm.gamma.assign(np.where(strong, 1.0, 1e-3))
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    for state in model_kernels(model):
        state.quantizer.reset_accumulators()
    model.fit(IMAGES, np.random.default_rng(1).standard_normal((32, 5)), verbose=0)
    with mock.patch.object(channels, "_without", wraps=channels._without) as cut:
        bmpq_tf.drop_channels(model, "40x", verbose=0)
    (_, _, (kept, *_)), _ = cut.call_args
    assert 0 < len(kept) <= 8
    assert strong[kept].all()


def test_what_cannot_be_dropped_is_told_with_the_reason():
    def held(inputs):
        x = L.Conv2D(8, 3, padding="same", name="mixed")(inputs)
        return L.Flatten()(L.Softmax(name="softmax")(x))

    model = trained(held)
    with pytest.raises(ValueError, match=r"'mixed' stay: 'softmax' \(Softmax\) may mix them"):
        bmpq_tf.drop_channels(model, "10x")
    inputs = keras.Input((4, 3))
    model = bmpq_tf.quantize_model(keras.Model(inputs, L.LSTM(5)(inputs)), pin=None)
    model.compile("adam", "mse")
    model.fit(np.ones((8, 4, 3)), np.ones((8, 5)), verbose=0)
    with pytest.raises(ValueError, match="Received: a model without Dense and Conv1D"):
        bmpq_tf.drop_channels(model, "10x")


def shares(x):
    return x / (1 + tf.reduce_sum(x, -1, keepdims=True))


@pytest.mark.parametrize(
    ("activation", "stays"),
    [
        ("relu", ""),
        (tf.nn.relu6, ""),
        (L.LeakyReLU(), ""),
        ("softmax", "the softmax of 'gate' weighs them against each other"),
        (tf.nn.softmax, "the softmax_v2 of 'gate' may weigh them against each other"),
        (L.Softmax(), "the Softmax of 'gate' may weigh them against each other"),
        (shares, "the shares of 'gate' may weigh them against each other"),
    ],
)
def test_activations_that_may_mix_channels_keep_them(activation, stays):
    def gated(inputs):
        x = L.Conv2D(8, 1, activation=activation, name="gate")(inputs)
        return L.GlobalAveragePooling2D()(x)

    told = names_of(made(gated, bmpq_tf.QuantizationConfig((2, 4, 8))))["gate"]
    assert told.startswith(stays)
    assert bool(told) is bool(stays)


@pytest.mark.parametrize("size", [1, 3])
def test_channels_that_are_read_in_groups_stay_and_others_go(size):
    def grouped(inputs):
        x = conv_bn(inputs, 16, "before")
        x = L.Conv2D(16, size, padding="same", groups=2, name="grouped")(x)
        return L.GlobalAveragePooling2D()(conv_bn(conv_bn(x, 32, "after"), 24, "last"))

    model = trained(grouped)
    assert {"before", "grouped"} <= {name for name, stays in names_of(model).items() if stays}
    smaller = bmpq_tf.drop_channels(model, "20x", verbose=0)
    assert smaller.count_params() < model.count_params()
    assert smaller.get_layer("grouped").filters == 16


def test_channels_before_the_positions_stay():
    inputs = keras.Input((4, 8, 8))
    x = L.Conv2D(16, 3, data_format="channels_first", name="first")(inputs)
    x = L.Dense(6, name="hidden")(L.Flatten()(x))
    model = bmpq_tf.quantize_model(keras.Model(inputs, L.Dense(5, name="head")(x)), pin=None)
    assert "first" not in names_of(model)
    assert names_of(model)["hidden"] == ""


def test_layers_that_are_called_twice_keep_their_channels():
    def twice(inputs):
        layer = L.Conv2D(4, 3, padding="same", name="shared")
        return L.GlobalAveragePooling2D()(layer(layer(conv_bn(inputs, 4, "before"))))

    assert names_of(made(twice))["before"] == "'shared' is called more than once"


def test_a_layer_that_a_model_inside_calls_too_is_called_twice():
    def twice(inputs):
        layer = L.Dense(8, name="shared")
        images = keras.Input((8, 8, 8))
        inner = keras.Model(images, L.Conv2D(8, 3, name="inner")(layer(images)))
        return L.GlobalAveragePooling2D()(inner(layer(conv_bn(inputs, 8, "before"))))

    assert names_of(made(twice))["before"] == "'shared' is called more than once"


@pytest.mark.parametrize(
    ("budget", "options", "words"),
    [
        ("20 kB flash", {}, "a budget of parameter bits"),
        ("10x", {"sensitivity": "entropy"}, "Known: first_order, squared, joint"),
        ("10x", {"time_limit": -1}, "time_limit is a number of seconds"),
    ],
)
def test_bad_input_is_told(budget, options, words):
    with pytest.raises(ValueError, match=words):
        bmpq_tf.drop_channels(made(chain), budget, **options)


def test_a_model_that_was_not_trained_is_refused():
    with pytest.raises(ValueError, match="No gradients were seen"):
        bmpq_tf.drop_channels(made(chain), "10x")


def test_a_budget_that_no_channels_meet_is_told_with_the_least_and_who_stays():
    with pytest.raises(
        bmpq_tf.InfeasibleBudgetError,
        match=r"eighth of the channels they are [\d,]+ at the least, because those of 'head'",
    ):
        bmpq_tf.drop_channels(trained(chain), "1000x")
