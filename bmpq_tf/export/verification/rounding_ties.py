"""Keras and LiteRT round the same numbers up to float32 rounding, so a value halfway between two
steps may go either way.

One such value moves by a whole step, and the answers by more than float32 explains. So that nothing
else hides behind that, the roundings carry names into the file: LiteRT can be asked for its
integers, and Keras can be made to take LiteRT's side where, and only where, its own value lies at
the edge. What then still differs is an error.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf.arithmetic.activations import steps
from bmpq_tf.model.activation_widths import activation_quantizers

_NAME = "bmpq_rounding_{}_{}"
_PATTERN = re.compile(r"bmpq_rounding_(\d+)_(\d+)$")
# A use of a quantizer: its number in the model, and which of its calls.
Use = tuple[int, int]


def name_roundings(model: keras.Model) -> None:
    """Makes each rounding of a frozen model carry its number as the operator's name.

    A converted file keeps it.
    """
    for number, quantizer in enumerate(activation_quantizers(model)):
        quantizer.rounding = _Named(number)


class _Named:
    def __init__(self, number: int):
        self._number, self._uses = number, 0

    def __call__(self, values):
        rounded = tf.round(values, name=_NAME.format(self._number, self._uses))
        self._uses += 1
        return rounded


def use_of(name: str) -> Use | None:
    """Returns which rounding a tensor of a converted file is, or `None`."""
    match = _PATTERN.search(name)
    return (int(match[1]), int(match[2])) if match else None


class Following:
    """Rounds as LiteRT did where a value lies within `tolerance` of the clip from the edge between
    two steps.

    Args:
        model: the Keras model that will be called eagerly.
        tolerance: how far, as a share of the clip, counts as the edge.

    Attributes:
        ties: how many values have gone the other way than Keras's own rounding so far.
    """

    def __init__(self, model: keras.Model, tolerance: float):
        self._quantizers = activation_quantizers(model)
        self._tolerance = tolerance
        self.ties = 0

    @contextmanager
    def taking(self, given: Mapping[Use, np.ndarray]) -> Iterator[None]:
        """While it lasts, the model's calls take these integers, one call of the model's."""
        for number, quantizer in enumerate(self._quantizers):
            quantizer.rounding = self._rounding(
                number, given, self._tolerance * steps(quantizer.bits)
            )
        try:
            yield
        finally:
            for quantizer in self._quantizers:
                quantizer.rounding = tf.round

    def _rounding(self, number: int, given: Mapping[Use, np.ndarray], tolerance: float):
        calls = iter(range(len(given)))

        def rounding(values):
            ours = tf.round(values)
            theirs = given.get((number, next(calls, -1)))
            if theirs is None:
                # The converter makes one rounding of equal ones, under one of their names.
                theirs = next(
                    (
                        other
                        for other in given.values()
                        if _is_rounding_of(values, other, tolerance)
                    ),
                    None,
                )
            if theirs is None or theirs.size != np.prod(values.shape):
                return ours
            theirs = tf.reshape(tf.constant(theirs, tf.float32), values.shape)
            at_edge = (tf.abs(values - theirs) <= 0.5 + tolerance) & (theirs != ours)
            self.ties += int(tf.math.count_nonzero(at_edge))
            return tf.where(at_edge, theirs, ours)

        return rounding


def _is_rounding_of(values, integers: np.ndarray, tolerance: float) -> bool:
    """Whether integers are what values round to, whichever way those at an edge go."""
    same_size = integers.size == np.prod(values.shape)
    return same_size and bool(
        np.all(np.abs(np.reshape(values, -1) - np.reshape(integers, -1)) <= 0.5 + tolerance)
    )
