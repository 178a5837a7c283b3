"""Bit planes: a round trip, and gradients that agree with the closed form that training
accumulates.
"""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from bmpq_tf.arithmetic import bit_planes

pytestmark = pytest.mark.quick

widths = st.integers(2, 8)


@given(bits=widths, data=st.data())
def test_composing_the_planes_gives_back_the_integers(bits, data):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    integers = data.draw(st.lists(st.integers(low, high), min_size=1, max_size=30))
    scale = data.draw(st.floats(2**-10, 16.0, width=32))
    planes = bit_planes.decompose(integers, bits)
    assert set(np.unique(planes)) <= {0.0, 1.0}
    np.testing.assert_allclose(
        bit_planes.compose(planes, scale), np.float32(scale) * np.float32(integers), rtol=1e-6
    )


@given(bits=widths, seed=st.integers(0, 1000))
def test_gradient_of_each_plane_is_what_its_bit_is_worth(bits, seed):
    gradient = np.random.default_rng(seed).standard_normal((4, 3)).astype("float32")
    scale = np.float32([[0.5, 1.0, 2.0]])
    worth = [2.0**i for i in range(bits - 1)] + [-(2.0 ** (bits - 1))]
    expected = np.stack([value * scale * gradient for value in worth])
    np.testing.assert_allclose(
        bit_planes.bit_gradients(tf.constant(gradient), scale, bits), expected, rtol=1e-6
    )


@given(bits=widths)
def test_mean_over_planes_equals_the_closed_form(bits):
    gradient = np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3)
    scale = np.float32([[0.5, 1.0, 2.0]])
    closed = (2**bits - 1) / bits * np.mean(scale * np.abs(gradient))
    assert float(
        bit_planes.normalised_bit_gradient(tf.constant(gradient), scale, bits)
    ) == pytest.approx(closed, rel=1e-5)


def test_an_integer_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"does not fit 2 bits.*-2 to 1.*maximum 2"):
        bit_planes.decompose([0, 2], 2)
