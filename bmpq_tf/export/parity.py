"""Does the file answer as the Keras model does?"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf import graph
from bmpq_tf.export.roundings import Following, activation_quantizers, expose
from bmpq_tf.export.runtime import TFLiteModel

TOLERANCE = 1e-4
_GENERATED = 16


@dataclasses.dataclass(frozen=True)
class Parity:
    """How close two models' outputs are.

    Attributes:
        max_abs_diff: the largest difference of an output value.
        logit_scale: the largest output of the Keras model.
        agreement: the share of equal positions of the largest output (top-1), over all outputs.
        examples: how many were compared.
        generated: whether the inputs were random, for want of better ones.
        unexplained_diff: the largest difference that is left once Keras has taken LiteRT's side at the edges between two steps of
            an activation (`bmpq_tf.export.roundings`); `max_abs_diff` where activations are float.
        ties: how many values those were, in the batches where they moved an answer.
    """

    max_abs_diff: float
    logit_scale: float
    agreement: float
    examples: int
    generated: bool
    unexplained_diff: float
    ties: int = 0

    @property
    def tolerance(self) -> float:
        """The largest difference that counts as rounding."""
        return _tolerance(self.logit_scale)

    @property
    def holds(self) -> bool:
        """Whether the difference is rounding; NaN is not."""
        return self.unexplained_diff <= self.tolerance


def compare(model: keras.Model, content: bytes, verify_with=None) -> Parity:
    """Runs both models on the same inputs.

    Args:
        model: the Keras model.
        content: the `.tflite` file's bytes.
        verify_with: arrays as the model takes them, a `tf.data.Dataset` of batches (labels are left out), or `None` for random
            inputs.

    Raises:
        ValueError: the inputs do not fit the model, or there are none.
    """
    runtime = TFLiteModel(content)
    follower = _Follower(model, content) if activation_quantizers(model) else None
    difference = unexplained = scale = 0.0
    equal = compared = examples = 0
    for batch in input_batches(model, verify_with):
        expected, received = _answers(model, batch), runtime(batch)
        examples += len(batch[0])
        scale = max([scale, *(float(np.abs(ours).max(initial=0.0)) for ours in expected)])
        apart = _largest_difference(expected, received)
        difference = max(difference, apart)
        if follower and not apart <= _tolerance(scale):
            apart = follower.difference(batch)
        unexplained = max(unexplained, apart)
        for ours, theirs in zip(expected, received, strict=True):
            if ours.ndim >= 2 and ours.shape[-1] > 1:
                same = ours.argmax(-1) == theirs.argmax(-1)
                equal, compared = equal + int(same.sum()), compared + same.size
    if not examples:
        raise ValueError("verify_with has no examples. Give at least one batch, or nothing to verify on random inputs.")
    ties = follower.ties if follower else 0
    return Parity(difference, scale, equal / compared if compared else 1.0, examples, verify_with is None, unexplained, ties)


class _Follower:
    """Compares once more, with Keras on LiteRT's side wherever a value lies at the edge between two steps."""

    def __init__(self, model: keras.Model, content: bytes):
        exposed, self._uses = expose(content)
        self._model, self._runtime = model, TFLiteModel(exposed)
        self._following = Following(model, TOLERANCE)

    @property
    def ties(self) -> int:
        return self._following.ties

    def difference(self, batch: list[np.ndarray]) -> float:
        outputs = self._runtime(batch)
        received, integers = outputs[: len(outputs) - len(self._uses)], outputs[len(outputs) - len(self._uses) :]
        with self._following.taking(self._uses, integers):
            expected = _answers(self._model, batch)
        return _largest_difference(expected, received)


def _answers(model: keras.Model, batch: list[np.ndarray]) -> list[np.ndarray]:
    structured = graph.structured_inputs(model, [tf.convert_to_tensor(array) for array in batch])
    return [np.asarray(output, np.float32) for output in keras.tree.flatten(model(structured, training=False))]


def _largest_difference(expected: list[np.ndarray], received: list[np.ndarray]) -> float:
    """A NaN on either side is infinitely far, so that it cannot pass as a small difference."""
    apart = [float(np.abs(ours - theirs).max(initial=0.0)) for ours, theirs in zip(expected, received, strict=True)]
    return max(value if np.isfinite(value) else float("inf") for value in apart)


def _tolerance(scale: float) -> float:
    return TOLERANCE * max(1.0, scale)


def input_batches(model: keras.Model, data, batch_size: int = 250) -> Iterator[list[np.ndarray]]:
    """Yields batches of the model's inputs, flat, from arrays, a `tf.data.Dataset` or a Keras data set; random ones from `None`.

    Raises:
        ValueError: a batch does not fit the model's inputs.
    """
    if data is None:
        yield _checked(model, _random_inputs(model))
    elif isinstance(data, (tf.data.Dataset, keras.utils.PyDataset)) or _is_batches(data):
        for batch in data:
            yield _checked(model, _inputs_of(batch, len(model.inputs)))
    else:
        arrays = _checked(model, [np.asarray(array) for array in keras.tree.flatten(data)])
        for start in range(0, len(arrays[0]), batch_size):
            yield [array[start : start + batch_size] for array in arrays]


def _is_batches(data) -> bool:
    return isinstance(data, Iterable) and not isinstance(data, (np.ndarray, tf.Tensor, Sequence, dict))


def _inputs_of(batch, count: int) -> list[np.ndarray]:
    """A batch is inputs, (inputs, labels) or (inputs, labels, weights); several inputs may come bare where nothing is nested."""
    bare = isinstance(batch, (tuple, list)) and len(batch) == count > 1 and not any(isinstance(part, (tuple, list, dict)) for part in batch)
    inputs = batch[0] if isinstance(batch, (tuple, list)) and not bare else batch
    return [np.asarray(array) for array in keras.tree.flatten(inputs)]


def _random_inputs(model) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    arrays = []
    for tensor in model.inputs:
        shape = [_GENERATED, *(size or 8 for size in tensor.shape[1:])]
        whole = "int" in keras.backend.standardize_dtype(tensor.dtype)
        values = generator.integers(0, 2, shape) if whole else generator.standard_normal(shape)
        arrays.append(values.astype(keras.backend.standardize_dtype(tensor.dtype)))
    return arrays


def _checked(model, arrays: list[np.ndarray]) -> list[np.ndarray]:
    wanted = [tuple(tensor.shape) for tensor in model.inputs]
    fits = len(arrays) == len(wanted) and all(
        array.ndim == len(shape) and all(size in (None, have) for size, have in zip(shape[1:], array.shape[1:], strict=True))
        for array, shape in zip(arrays, wanted, strict=True)
    )
    if not fits:
        raise ValueError(f"The inputs do not fit model '{model.name}', which takes {wanted}. Received: {[array.shape for array in arrays]}.")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"The inputs for model '{model.name}' hold NaN or infinite values. Clean them first.")
    return arrays
