"""The fused BatchNormalization is Keras's, and `quantize_model` puts it in that one's place."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled, small_model
from subclassed_models import IMAGES, ResNet

from bmpq_tf import dequantize_model, quantize_model
from bmpq_tf.layers import FusedBatchNormalization

KINDS = (keras.layers.BatchNormalization, FusedBatchNormalization)
RANDOM = np.random.default_rng(0)


def trained_once(kind, shape, dtype="float32", **settings):
    """Answers, gradients and statistics of a training step, and the answers after it."""
    layer = kind(momentum=0.7, dtype=dtype, **settings)
    values = tf.cast(np.random.default_rng(1).normal(3.0, 2.0, shape), layer.compute_dtype)
    layer.build(shape)
    for number, variable in enumerate(layer.weights):
        variable.assign(np.linspace(1, 2 + number, 3))
    with tf.GradientTape() as tape:
        tape.watch(values)
        outputs = layer(values, training=True)
        loss = tf.reduce_sum(tf.sin(tf.cast(outputs, tf.float32)))
    trained = [variable.value for variable in layer.trainable_variables]
    assert outputs.dtype == layer.compute_dtype
    told = [outputs, *tape.gradient(loss, [values, *trained]), *layer.get_weights(), layer(values)]
    return [np.asarray(tf.cast(one, tf.float32)) for one in told]


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((6, 5, 4, 3), {}),
        ((16, 3), {"scale": False}),
        ((6, 5, 3), {"center": False, "epsilon": 0.1}),
        ((2, 3, 4, 2, 3), {"axis": 4}),
        # What the kernel does not know.
        ((6, 3, 4, 5), {"axis": 1}),
        ((6, 5, 4, 3), {"epsilon": 1e-7}),
        ((6, 5, 4, 3), {"dtype": "float64"}),
        ((6, 5, 4, 3), {"dtype": "float16"}),
        ((6, 5, 4, 3), {"dtype": "bfloat16"}),
        ((6, 5, 4, 3), {"renorm": True}),
    ],
    ids=str,
)
def test_it_trains_as_keras_does(shape, settings):
    for theirs, ours in zip(
        *(trained_once(kind, shape, **settings) for kind in KINDS), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_it_trains_as_keras_does_in_16_bits(dtype):
    both = [trained_once(kind, (6, 5, 4, 3), dtype) for kind in KINDS]
    for theirs, ours in zip(*both, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.1, atol=0.1)


def test_a_frozen_one_and_a_mask_are_as_keras_has_them():
    frozen = FusedBatchNormalization(trainable=False)
    frozen(IMAGES, training=True)
    assert not np.any(frozen.moving_mean)
    values = RANDOM.standard_normal((4, 6, 3)).astype("float32")
    mask = np.arange(6) < [[2], [6], [3], [1]]
    answers = [kind()(values, training=True, mask=mask) for kind in KINDS]
    np.testing.assert_array_equal(*answers)


def test_sizes_that_are_not_known_stay_open():
    layer = FusedBatchNormalization()
    steps = tf.function(lambda x: layer(x, training=True)).get_concrete_function(
        tf.TensorSpec((None, None, 3))
    )
    assert steps.output_shapes.as_list() == [None, None, 3]
    values = tf.constant(RANDOM.standard_normal((2, 5, 3)), tf.float32)
    np.testing.assert_allclose(tf.reduce_mean(steps(values), (0, 1)), np.zeros(3), atol=1e-5)


def test_quantized_models_have_it_and_float_ones_keras_own():
    class Own(keras.layers.BatchNormalization):
        pass

    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = Own(name="own")(keras.layers.BatchNormalization(name="left_out")(x))
    model = quantize_model(keras.Model(inputs, x), exclude="left_out", pin=None)
    assert type(model.get_layer("bn")) is FusedBatchNormalization
    assert type(model.get_layer("left_out")) is keras.layers.BatchNormalization
    assert type(model.get_layer("own")) is Own
    images = RANDOM.standard_normal((8, 6, 6, 2)).astype("float32")
    model(images, training=True)
    plain = dequantize_model(model)
    assert type(plain.get_layer("bn")) is keras.layers.BatchNormalization
    np.testing.assert_allclose(plain(images), model(images), atol=1e-5)
    only = quantize_model(small_model(), layers="stem", pin=None)
    assert type(only.get_layer("bn")) is keras.layers.BatchNormalization


@pytest.mark.filterwarnings("ignore:.build... was called on layer")
def test_subclassed_models_have_it_in_place_and_in_files(tmp_path):
    def kinds(model):
        return {
            type(layer)
            for layer in model._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
        }

    model = ResNet()
    model(IMAGES)
    assert kinds(model) == {keras.layers.BatchNormalization}
    quantize_model(model, pin=None)
    assert kinds(model) == {FusedBatchNormalization}
    compiled(model).fit(IMAGES, np.zeros(len(IMAGES), int), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert kinds(loaded) == {FusedBatchNormalization}
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))
    assert kinds(dequantize_model(model)) == {keras.layers.BatchNormalization}
