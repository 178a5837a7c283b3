"""Kernels of zeros, without elements, of open shapes, and behind sparse inputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_examples import ENTRIES

from bmpq_tf.model.kernels import read


@pytest.mark.parametrize("scale", ["learned", "statistical", "max_abs"])
def test_channels_and_kernels_of_zeros_learn(scale):
    layer = ENTRIES["Dense"].quantized_class(
        3, kernel_initializer="zeros", quantizer={"candidate_bits": (2,), "scale": scale}
    )
    model = keras.Sequential([keras.Input((4,)), layer])
    kernel = np.zeros((4, 3), "float32")
    kernel[:, 0] = 1
    layer._kernel.assign(kernel)
    model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=False)
    x = np.random.default_rng(0).standard_normal((32, 4)).astype("float32")
    model.fit(x, x @ np.ones((4, 3), "float32"), epochs=4, verbose=0)
    assert all(np.isfinite(variable.numpy()).all() for variable in model.weights)
    assert np.all(np.abs(np.asarray(layer.kernel)).max(axis=0) > 0.1)


@pytest.mark.parametrize("scale", ["learned", "statistical", "max_abs"])
def test_a_kernel_without_elements_adds_no_nan(scale):
    # Eagerly: fit aborts on such a layer, Keras's own too (oneDNN has no inner product over
    # nothing).
    layer = ENTRIES["Dense"].quantized_class(3, quantizer={"scale": scale})
    model = keras.Sequential([keras.Input((0,)), layer])
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(np.zeros((4, 0), "float32")) - 1) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(
        np.isfinite(value).all()
        for value in [*gradients, *(variable.numpy() for variable in model.weights)]
    )
    assert np.all(np.asarray(layer.kernel_quantizer.scale(layer._kernel)) > 0)
    # What was seen and not finite would stop the allocation of all the others.
    assert read(layer.kernel_quantizer.uses_seen) == 0


def test_an_embedding_builds_without_a_shape_and_takes_the_weights_it_is_given():
    layer = ENTRIES["Embedding"].quantized_class(5, 3)
    layer.build()
    assert layer.kernels()[0][0].shape == (5, 3)
    table = np.random.default_rng(0).standard_normal((5, 3)).astype("float32")
    for weights in (table, [table]):
        given = ENTRIES["Embedding"].quantized_class(5, 3, weights=weights)
        np.testing.assert_array_equal(given.kernels()[0][0], table)
        # Its learned scales start for these weights.
        np.testing.assert_allclose(given(np.arange(5)), table, atol=np.abs(table).max() / 60)


def test_sparse_inputs_train_a_quantized_kernel():
    inputs = keras.Input((6,), sparse=True)
    model = keras.Model(inputs, ENTRIES["Dense"].quantized_class(2, name="dense")(inputs))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    ((kernel, quantizer),) = model.get_layer("dense").kernels()
    before = read(kernel)
    x = tf.sparse.from_dense(np.eye(6, dtype="float32"))
    data = tf.data.Dataset.from_tensors((x, np.ones((6, 2), "float32")))
    model.fit(data, shuffle=False, verbose=0)
    assert not np.array_equal(before, read(kernel))
    assert quantizer.accumulated().uses_finite == 1
