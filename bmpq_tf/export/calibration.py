"""The ranges of a model's activations, measured on data."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bmpq_tf.export.exposed import Exposed

Range = tuple[float, float]
_AT_ONCE = 16


def ranges(content: bytes, batches: Iterable[Sequence[np.ndarray]]) -> dict[str, Range]:
    """Returns the smallest and largest value of every float tensor that an operator computes, and of the inputs.

    Args:
        content: the float model's bytes.
        batches: inputs as the model takes them.

    Raises:
        ValueError: there is no batch.
    """
    measured: dict[str, Range] = {}
    exposed = Exposed(content)
    # Every tensor of the model is kept for a moment, so only a few examples at a time.
    for batch in (few for whole in batches for few in _parts(whole)):
        for name, values in exposed(batch)[1].items():
            low, high = measured.get(name, (np.inf, -np.inf))
            measured[name] = min(low, float(values.min(initial=np.inf))), max(high, float(values.max(initial=-np.inf)))
    if not measured:
        raise ValueError("calibrate_with has no examples. Give at least one batch of inputs like those that the model will meet.")
    return measured


def _parts(batch: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    for start in range(0, len(batch[0]), _AT_ONCE):
        yield [array[start : start + _AT_ONCE] for array in batch]
