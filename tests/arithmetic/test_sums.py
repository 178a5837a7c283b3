"""Sums over the weights of a channel, whatever the kernel's layout."""

import numpy as np
import pytest
import tensorflow as tf

from bmpq_tf.arithmetic import sums
from bmpq_tf.layers import kernel_quantizer
from bmpq_tf.layers.config import QuantizerConfig

pytestmark = pytest.mark.quick

# The kernel's shape, what is summed, and the columns of its matrix: convolutions, a depthwise one,
# transposed, per tensor, one channel, none.
LAYOUTS = [
    ((3, 3, 5, 7), [0, 1, 2], 7),
    ((3, 3, 5, 2), [0, 1], 10),
    ((3, 3, 5, 1), [0, 1, 3], 5),
    ((3, 3, 5, 7), [0, 1, 3], None),
    ((3, 5), [0, 1], None),
    ((4, 1), [0], None),
    ((0, 5), [0], None),
    ((3, 5), [], None),
]


@pytest.mark.parametrize(("shape", "axes", "columns"), LAYOUTS)
def test_a_sum_is_that_of_the_axes_whether_the_kernel_is_a_matrix_or_not(shape, axes, columns):
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert sums.columns(shape, axes) == columns
    received = sums.by_channel(tf.constant(values), axes)
    expected = values.sum(tuple(axes), np.float64).ravel()
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)
    assert received.shape == expected.shape


def test_a_long_sum_loses_no_more_than_float32_must():
    values = np.random.default_rng(0).random((500_000, 2)).astype(np.float32)
    np.testing.assert_allclose(
        sums.by_channel(tf.constant(values), [0]), values.sum(0, np.float64), rtol=1e-4
    )


@pytest.mark.parametrize("scale", [None, 2.0**70])
def test_sensitivities_are_free_of_the_loss_scale_even_where_its_square_overflows(scale):
    quantizer = kernel_quantizer.KernelQuantizer(QuantizerConfig(), (-1,))
    quantizer.build((3, 2))
    quantizer.scale_base.assign([[1.0]])
    if scale is not None:
        quantizer._scale_loss = lambda loss: loss * scale
    gradient = np.float32([[1, -2], [3, 4], [-5, 6]])
    kernel = tf.ones((3, 2))
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        used = quantizer.call(kernel)
    tape.gradient(used, kernel, tf.constant(gradient) * (scale or 1.0))
    read = quantizer.accumulated()
    np.testing.assert_allclose(read.gradient_abs, [[3, 4]], rtol=1e-6)
    np.testing.assert_allclose(read.gradient_square, [[35 / 3, 56 / 3]], rtol=1e-6)
    np.testing.assert_allclose(read.bit_gradient, 255 / 8 * 3.5, rtol=1e-6)
