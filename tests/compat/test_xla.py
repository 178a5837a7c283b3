"""Every private name of XLA that bmpq_tf uses is there and means what it did."""

import numpy as np
import tensorflow as tf

from bmpq_tf._compat import xla


def test_a_slice_is_put_in_place_and_the_shape_is_kept():
    traced = tf.function(
        lambda step: xla.with_slice(tf.zeros((3, 2)), tf.ones((1, 2)), tf.stack([step, 0]))
    ).get_concrete_function(tf.TensorSpec((), tf.int32))
    assert traced.outputs[0].shape == (3, 2)
    (operator,) = [
        operator.type for operator in traced.graph.get_operations() if "Slice" in operator.type
    ]
    assert operator == "XlaDynamicUpdateSlice"
    # Only compiled code and the converter know it.
    compiled = tf.function(
        lambda: xla.with_slice(tf.zeros((3, 2)), tf.ones((1, 2)), tf.stack([1, 0])),
        jit_compile=True,
    )
    np.testing.assert_array_equal(compiled(), [[0, 0], [1, 1], [0, 0]])
