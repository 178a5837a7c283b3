"""The inputs that both models answer: the user's, in whatever form, or random ones."""

import math
from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf.export.tflite.interpreter import in_rank
from bmpq_tf.model import keras_graph


def few_inputs(model: keras.Model, data) -> list[np.ndarray]:
    """Returns a few of the inputs for a closer look.

    Random ones where the data were only there once.
    """
    once = isinstance(data, Iterator)
    return first_examples(model, next(input_batches(model, None if once else data)))


def first_examples(model: keras.Model, batch: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the first examples of a batch, or the whole one where the batch size is fixed."""
    count = _few(sum(array.size for array in batch) / max(1, len(batch[0])))
    return batch if model.inputs[0].shape[0] else [array[:count] for array in batch]


def _few(values: float) -> int:
    """Returns how many examples of so many values tell enough at a bearable cost."""
    return int(np.clip(_FEW_VALUES // max(1, values), *_FEW))


def input_batches(
    model: keras.Model, data, what: str = "verify_with"
) -> Iterator[list[np.ndarray]]:
    """Yields batches of the model's inputs, flat, from arrays, a `tf.data.Dataset` or a Keras data
    set; random ones from `None`.

    Raises:
        ValueError: a batch does not fit the model's inputs; `what` names the argument that it came
            from.
    """
    if _is_endless(data):
        raise ValueError(
            f"The data in {what} are endless. Received: {data!r}. Give a part of them, such as "
            "data.take(10)."
        )
    if data is None:
        yield _checked(model, _random_inputs(model), what)
    elif isinstance(data, (tf.data.Dataset, keras.utils.PyDataset)) or _is_batches(data):
        for batch in data:
            yield from _of_fixed_size(model, _checked(model, _inputs_of(model, batch), what))
    else:
        arrays = _checked(
            model, [np.asarray(array) for array in keras_graph.flat_inputs(model, data)], what
        )
        if model.inputs[0].shape[0]:
            yield from _of_fixed_size(model, arrays)
            return
        for start in range(0, len(arrays[0]), _BATCH):
            yield [array[start : start + _BATCH] for array in arrays]


def batch_count(model: keras.Model, data) -> int | None:
    """Returns how many batches `input_batches` yields, if that is known before."""
    fixed = model.inputs[0].shape[0]
    if isinstance(data, (tf.data.Dataset, keras.utils.PyDataset)):
        count = data.cardinality() if isinstance(data, tf.data.Dataset) else data.num_batches
        return None if fixed or count is None or count < 0 else int(count)
    if data is None or _is_batches(data):
        return None
    arrays = list(data.values()) if isinstance(data, dict) else data
    first = arrays[0] if isinstance(arrays, (list, tuple)) and len(arrays) else arrays
    examples = next(iter(np.shape(first)), 0)
    return examples // fixed if fixed else -(-examples // _BATCH)


def through(front: keras.Model, data, what: str):
    """Returns what the first part of a model makes of its inputs, batch by batch, as often as they
    can be read; `None` of `None`.
    """
    if data is None:
        return None
    passed = _Passed(front, data, what)
    return iter(passed) if isinstance(data, Iterator) else passed


class _Passed:
    def __init__(self, front: keras.Model, data, what: str):
        self._front, self._data, self._what = front, data, what

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        for batch in input_batches(self._front, self._data, what=self._what):
            tensors = [tf.convert_to_tensor(array) for array in batch]
            given = keras_graph.structured_inputs(self._front, tensors)
            answers = keras.tree.flatten(self._front(given, training=False))
            yield [np.asarray(answer) for answer in answers]


def _is_endless(data) -> bool:
    if isinstance(data, tf.data.Dataset):
        return data.cardinality() == tf.data.INFINITE_CARDINALITY
    return isinstance(data, keras.utils.PyDataset) and data.num_batches is None


def _is_batches(data) -> bool:
    return isinstance(data, Iterable) and not isinstance(
        data, (np.ndarray, tf.Tensor, Sequence, dict)
    )


def _of_fixed_size(model: keras.Model, arrays: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Cuts a batch into those that a model of a fixed batch size takes.

    What is left over is left out, and so is an empty one.
    """
    size = model.inputs[0].shape[0] or max(1, len(arrays[0]))
    for start in range(0, len(arrays[0]) - size + 1, size):
        yield [array[start : start + size] for array in arrays]


def _inputs_of(model: keras.Model, batch) -> list[np.ndarray]:
    """A batch is inputs, (inputs, labels) or (inputs, labels, weights).

    Several inputs may come bare where nothing is nested.
    """
    count = len(model.inputs)
    bare = (
        isinstance(batch, (tuple, list))
        and len(batch) == count > 1
        and not any(isinstance(part, (tuple, list, dict)) for part in batch)
    )
    inputs = batch[0] if isinstance(batch, (tuple, list)) and not bare else batch
    return [np.asarray(array) for array in keras_graph.flat_inputs(model, inputs)]


def _random_inputs(model) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    arrays = []
    sizes = [tuple(size or OPEN_SIZE for size in tensor.shape[1:]) for tensor in model.inputs]
    count = model.inputs[0].shape[0] or _few(sum(math.prod(size) for size in sizes))
    for tensor, size in zip(model.inputs, sizes, strict=True):
        shape = (count, *size)
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        whole = "int" in dtype or dtype == "bool"
        values = generator.integers(0, 2, shape) if whole else generator.standard_normal(shape)
        arrays.append(values.astype(dtype))
    return arrays


def _checked(model, arrays: list[np.ndarray], what: str) -> list[np.ndarray]:
    wanted = [tuple(tensor.shape) for tensor in model.inputs]
    given = [array.shape for array in arrays]
    arrays = (
        [in_rank(array, shape) for array, shape in zip(arrays, wanted, strict=True)]
        if len(arrays) == len(wanted)
        else arrays
    )
    fits = len(arrays) == len(wanted) and len({len(array) for array in arrays if array.ndim}) == 1
    fits = fits and all(
        array.ndim == len(shape)
        and all(size in (None, have) for size, have in zip(shape[1:], array.shape[1:], strict=True))
        for array, shape in zip(arrays, wanted, strict=True)
    )
    if not fits:
        raise ValueError(
            f"The inputs in {what} do not fit model '{model.name}', which takes {wanted}. "
            f"Received: {given}."
        )
    # Texts come as objects.
    if not all(np.isfinite(array).all() for array in arrays if array.dtype.kind in "fc"):
        raise ValueError(
            f"The inputs in {what} for model '{model.name}' hold NaN or infinite values. Clean "
            "them first."
        )
    # Pixels are often whole numbers where the model takes floats.
    kinds = [keras.backend.standardize_dtype(tensor.dtype) for tensor in model.inputs]
    return [
        array if kind == "string" else array.astype(kind, copy=False)
        for array, kind in zip(arrays, kinds, strict=True)
    ]


_BATCH = 32
# Sixteen small images, or four of 224 x 224.
_FEW, _FEW_VALUES = (4, 16), 2**19
OPEN_SIZE = 64  # of an axis of any size: enough for the poolings of common networks
