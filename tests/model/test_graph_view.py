"""What the end of a model is, whatever it is written with."""

import keras
import pytest

import bmpq_tf

pytestmark = pytest.mark.quick

L = keras.layers


class Own(keras.Model):
    """Its code ends in a function."""

    def __init__(self, end, **kwargs):
        super().__init__(**kwargs)
        self.head, self.end = L.Dense(3), end

    def call(self, x):
        return self.end(self.head(x))


def two_ends(read: int) -> keras.Model:
    """A model of which another reads one of two outputs, the second of them probabilities."""
    inputs = keras.Input((4,))
    inner = keras.Model(inputs, [L.Dense(3)(inputs), L.Dense(3, activation="softmax")(inputs)])
    outer = keras.Input((4,))
    return keras.Model(outer, inner(outer)[read])


def functional(end) -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, end(L.Dense(3)(inputs)))


def built(model: keras.Model) -> keras.Model:
    model(keras.ops.zeros((1, 4)))
    return model


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: functional(lambda x: x), False),
        (lambda: functional(L.Softmax()), True),
        (lambda: functional(L.Activation("softmax")), True),
        (lambda: functional(keras.ops.softmax), True),
        (lambda: functional(keras.ops.log_softmax), False),
        (lambda: built(Own(keras.ops.softmax)), True),
        (lambda: built(Own(keras.activations.softmax)), True),
        (lambda: built(Own(keras.ops.relu)), False),
        (lambda: two_ends(0), False),
        (lambda: two_ends(1), True),
    ],
)
def test_a_model_that_ends_in_a_softmax_is_told_from_others(build, expected):
    assert bmpq_tf.ends_in_softmax(build()) is expected
