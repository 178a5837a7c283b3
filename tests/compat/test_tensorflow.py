"""A SavedModel's graph is where it was, and can be made to call its own functions."""

import pytest
import tensorflow as tf

from bmpq_tf._compat import tensorflow as tensorflow_compat

pytestmark = pytest.mark.quick


def test_operators_become_calls_of_functions_in_the_same_file(tmp_path):
    spec = [tf.TensorSpec(None, tf.float32)]
    module = tf.Module()
    module.doubled = tf.function(lambda x: 2.0 * x, input_signature=spec).get_concrete_function()
    module.serve = tf.function(
        lambda x: tf.math.erf(x) + 1.0, input_signature=spec
    ).get_concrete_function()
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    tensorflow_compat.call_instead(str(tmp_path), {"Erf": module.doubled.name})
    served = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    (answer,) = served(tf.constant([3.0, 4.0])).values()
    assert answer.numpy().tolist() == [7.0, 9.0]
