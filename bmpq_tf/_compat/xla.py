"""Operators of XLA that TensorFlow converts to TFLite's and does not document.

See `tests/compat/test_xla.py`.
"""

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops


def with_slice(values: tf.Tensor, part: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Returns `values` with `part` at `start`; TFLite's DYNAMIC_UPDATE_SLICE."""
    updated = gen_xla_ops.xla_dynamic_update_slice(values, part, start)
    # XLA's operator tells no shape.
    updated.set_shape(values.shape)
    return updated
