"""Keras and LiteRT round the same numbers up to float32 rounding, so a value halfway between two
steps may go either way.

One such value moves by a whole step, and the answers by more than float32 explains. So that nothing
else hides behind that, LiteRT is asked for the integers of every rounding, and Keras is made to
take LiteRT's side where, and only where, its own value lies at the edge. Both then compute with the
same numbers from rounding to rounding, so that ties do not add up with depth, and what still
differs is an error.

A rounding is found by its name, where the converter kept it, and by its values where it did not:
behind a reshape or a transpose that the converter has moved, it has another name and order of axes.
That a wrong tensor is taken for it cannot hide an error: no value moves but at an edge.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf._compat.litert import schema
from bmpq_tf.arithmetic.activations import steps
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.model.activation_widths import activation_quantizers

_NAME = "bmpq_rounding_{}_{}"
_PATTERN = re.compile(r"bmpq_rounding_(\d+)_(\d+)$")
# A use of a quantizer: its number in the model, and which of its calls.
Use = tuple[int, int]
# How many values show which rounding a tensor is, and the share of them that must fit.
_SAMPLE, _FITS = 2048, 0.5
# Orders of more axes than that are too many to try.
_AXES = 5


def name_roundings(model: keras.Model) -> None:
    """Makes each rounding of a frozen model carry its number as the operator's name.

    A converted file mostly keeps it.
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
    """Returns which rounding a tensor of a converted file is by its name, or `None`."""
    match = _PATTERN.search(name)
    return (int(match[1]), int(match[2])) if match else None


def rounded_tensors(content: bytes) -> set[str]:
    """Returns the names of the tensors that a file rounds."""
    model = flatbuffer.parse(content)
    subgraph = model.subgraphs[0]
    return {
        flatbuffer.tensor_name(subgraph.tensors[operator.outputs[0]])
        for operator in subgraph.operators
        if flatbuffer.builtin_of(model, operator) == schema.BuiltinOperator.ROUND
    }


class Following:
    """Rounds as LiteRT did where a value lies within `tolerance` of the clip from the edge between
    two steps.

    Args:
        model: the Keras model that will be called eagerly.
        tolerance: how far, as a share of the clip, counts as the edge.

    Attributes:
        ties: how many values have gone the other way than Keras's own rounding so far.
        departed: what is no tie, in words: the first rounding of the latest call in which a value
            lies on another step though it was not at an edge; nothing where there is none.
    """

    def __init__(self, model: keras.Model, tolerance: float):
        self._quantizers = activation_quantizers(model)
        self._tolerance = tolerance
        self.ties, self.departed = 0, ""

    @contextmanager
    def taking(self, given: Mapping[str, np.ndarray]) -> Iterator[None]:
        """While it lasts, the model's calls take these integers, one call of the model's.

        Args:
            given: by the names in the file, what it rounded.
        """
        self.departed = ""
        for number, quantizer in enumerate(self._quantizers):
            quantizer.rounding = self._rounding(number, given)
        try:
            yield
        finally:
            for quantizer in self._quantizers:
                quantizer.rounding = tf.round

    def _rounding(self, number: int, given: Mapping[str, np.ndarray]):
        calls = itertools.count()
        quantizer = self._quantizers[number]
        tolerance = self._tolerance * steps(quantizer.bits)

        def rounding(values):
            ours, use = tf.round(values), (number, next(calls))
            if tf.is_symbolic_tensor(values) or not np.prod(values.shape):
                return ours
            theirs = _rounding_of(np.asarray(values), given, use, tolerance)
            if theirs is None:
                self.departed = self.departed or (
                    f"Nothing in the file rounds as '{quantizer.path}' does."
                )
                return ours
            at_edge = np.abs(values - theirs) <= 0.5 + tolerance
            if beyond := np.count_nonzero(~at_edge):
                self.departed = self.departed or (
                    f"The first rounding that differs is '{quantizer.path}': {beyond:,} of "
                    f"{at_edge.size:,} values lie on another step, and not for being at an edge."
                )
            self.ties += int(np.count_nonzero(at_edge & (theirs != ours)))
            return tf.where(at_edge, theirs, ours)

        return rounding


def _rounding_of(
    values: np.ndarray, given: Mapping[str, np.ndarray], use: Use, tolerance: float
) -> np.ndarray | None:
    """Returns the tensor that holds what these values round to, in their shape, or `None`.

    The converter makes one rounding of equal ones, under one of their names.
    """
    named = [theirs for name, theirs in given.items() if use_of(name) == use]
    sample = np.random.default_rng(0).integers(0, values.size, _SAMPLE)
    wanted = values.reshape(-1)[sample]
    best, most = None, _FITS
    for theirs in named or given.values():
        if theirs.size != values.size:
            continue
        for ordered in _orders(theirs, values.shape):
            found = ordered[np.unravel_index(sample, ordered.shape)]
            share = np.mean(np.abs(wanted - found) <= 0.5 + tolerance)
            if share > most:
                best, most = ordered, share
    return None if best is None else best.reshape(values.shape).astype(np.float32)


def _orders(theirs: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yields a tensor in every order of its axes and of those of another shape of its size, the
    order that it has first.
    """
    yield theirs
    for turned, sizes in ((False, theirs.shape), (True, shape)):
        # Axes of one element may stand anywhere.
        sizes = [size for size in sizes if size > 1]
        if not 1 < len(sizes) <= _AXES:
            continue
        for order in itertools.permutations(range(len(sizes))):
            if turned:
                back = np.argsort(order)
                yield theirs.reshape([sizes[axis] for axis in order]).transpose(back)
            else:
                yield theirs.reshape(sizes).transpose(order)
