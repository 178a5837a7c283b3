"""Data of a search as people give it: arrays, data sets, functions that give either."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# To compare a file on.
INPUTS = 500
# Of arrays, to tell how sure a difference is.
PARTS = 10


def fit_arguments(data: Any, batch_size: int, name: str) -> dict[str, Any]:
    """Returns data as arguments of `fit` and `evaluate`.

    Raises:
        ValueError: it is neither a data set nor a pair of arrays, or an endless one.
    """
    if isinstance(data, tf.data.Dataset):
        if data.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                f"{name} never ends, so that a run would not. Received: an endless data set. Give "
                "one without repeat()."
            )
        return {"x": data}
    if isinstance(data, keras.utils.PyDataset):
        return {"x": data}
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return {"x": data[0], "y": data[1], "batch_size": batch_size}
    parts = f" with {len(data)} parts" if isinstance(data, (tuple, list)) else ""
    raise ValueError(
        f"{name} is a pair of arrays (x, y) or a data set of batches. Received: {name} of type "
        f"{type(data).__name__}{parts}."
    )


def training_of(
    train: Any, batch_size: int
) -> Callable[[], tuple[dict[str, Any], list[keras.callbacks.Callback]]]:
    """Returns a function that gives a run's arguments of `fit`, and the callbacks they need.

    Raises:
        ValueError: the data are not understood, at once or when the function is called.
    """
    if not callable(train) or isinstance(train, (tf.data.Dataset, keras.utils.PyDataset)):
        arguments = fit_arguments(train, batch_size, "train")
        return lambda: (arguments, [])

    function: Any = train

    def given():
        returned = function()
        parts = returned if isinstance(returned, (tuple, list)) else ()
        if len(parts) != 2 or not isinstance(parts[1], (tuple, list)):
            raise ValueError(
                "A function for train returns the data and a list of callbacks: return data, []. "
                f"Received: {type(returned).__name__} with {len(parts)} parts."
            )
        return fit_arguments(parts[0], batch_size, "train()"), list(parts[1])

    return given


def first_inputs(arguments: dict[str, Any], count: int = INPUTS) -> Any:
    """Returns the first inputs of data that `fit_arguments` returned, as arrays."""
    if "y" in arguments:
        return keras.tree.map_structure(lambda array: np.asarray(array[:count]), arguments["x"])
    parts, have = [], 0
    for inputs, *_ in arguments["x"]:
        parts.append(keras.tree.map_structure(np.asarray, inputs))
        have += len(keras.tree.flatten(parts[-1])[0])
        if have >= count:
            break
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays)[:count], *parts)


def part_values(model: keras.Model, arguments: dict[str, Any], metric: str) -> tuple[float, ...]:
    """Returns the metric on parts of data that `fit_arguments` returned: ten of arrays, the batches
    of a data set; none of what is too small to tell more than noise.
    """

    def value(**part) -> float:
        values: Any = model.evaluate(**part, return_dict=True, verbose=0)  # pyright: ignore[reportArgumentType]
        return float(values[metric])

    if "y" not in arguments:
        values, first = [], 0
        # One batch at a time: all together may be more than memory.
        for batch in arguments["x"]:
            size = len(keras.tree.flatten(batch[0])[0]) if len(batch) > 1 else 0
            first = first or size
            if size and size == first:
                values.append(value(x=batch[0], y=batch[1]))
        return tuple(values) if len(values) > 1 else ()
    size = len(keras.tree.flatten(arguments["y"])[0]) // PARTS
    if size < 2:
        return ()

    # Every tenth example, because data may be sorted by label.
    def part(first: int) -> dict[str, Any]:
        return {
            name: keras.tree.map_structure(
                lambda array: np.asarray(array)[first::PARTS][:size], arguments[name]
            )
            for name in ("x", "y")
        }

    batch_size = arguments["batch_size"]
    return tuple(value(**part(first), batch_size=batch_size) for first in range(PARTS))


def check_better_than_guessing(arguments: dict[str, Any], metric: str, value: float) -> None:
    """Raises ValueError if a float model's accuracy is that of the most frequent label at most: it
    was not trained, and anything is as good.
    """
    labels = arguments.get("y")
    if metric != "accuracy" or not hasattr(labels, "shape"):
        return
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or not labels.size:
        return
    if labels.ndim > 1 and labels.shape[-1] > 1 and set(np.unique(labels)) <= {0, 1}:
        if not (labels.sum(-1) == 1).all():
            return
        labels = labels.argmax(-1)  # one-hot
    share = np.unique(labels, return_counts=True)[1].max() / labels.size
    # Keras's mean is a float32. A model of one class learns nothing else.
    if value <= share + 1e-6 and share < 1:
        raise ValueError(
            "The float model is no better than one that always gives the most frequent label, so "
            f"there is nothing to stay near. Received: {metric}={value:.2%} on the validation "
            f"data, where that label has {share:.2%}. Train it first, or give float_epochs."
        )
