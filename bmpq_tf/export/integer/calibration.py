"""The ranges of a model's activations, measured on data."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bmpq_tf.export.tflite.inner_tensors import Exposed

Range = tuple[float, float]
_AT_ONCE = 16
_UNIT = (0.0, 1.0)


def ranges(
    content: bytes, batches: Iterable[Sequence[np.ndarray]], at_once: int | None = None
) -> dict[str, Range]:
    """Returns the smallest and largest value of every float tensor that an operator computes, and
    of the inputs.

    Args:
        content: the float model's bytes.
        batches: inputs as the model takes them.
        at_once: how many examples the model takes, if that is fixed.

    Raises:
        ValueError: there is no batch.
    """
    measured: dict[str, Range] = {}
    exposed = Exposed(content)
    # Every tensor of the model is kept for a moment, so only a few examples at a time.
    for batch in (few for whole in batches for few in _parts(whole, at_once or _AT_ONCE)):
        for name, values in exposed(batch)[1].items():
            low, high = measured.get(name, (np.inf, -np.inf))
            measured[name] = (
                min(low, float(values.min(initial=np.inf))),
                max(high, float(values.max(initial=-np.inf))),
            )
    if not measured:
        raise ValueError(
            "calibrate_with has no examples, or not a whole batch. Give at least one of inputs "
            "like those that the model will meet."
        )
    # What is zero on all examples lies on any grid; XNNPACK refuses the scale that an empty range
    # would give.
    return {name: limits if any(limits) else _UNIT for name, limits in measured.items()}


def _parts(batch: Sequence[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    for start in range(0, len(batch[0]), size):
        yield [array[start : start + size] for array in batch]
