"""The ranges of a model's activations, measured on data."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from bmpq_tf.export.integer import loop_states, loop_steps
from bmpq_tf.export.integer.ranges import Range, joined
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.inner_tensors import Exposed

_AT_ONCE, _VALUES_AT_ONCE = 16, 2**25
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
    exposed, model = Exposed(content), flatbuffer.parse(content)
    steps = [loop_steps.Steps(content, number) for number in range(len(loop_states.loops(model)))]
    # Every tensor of the model is kept for a moment, so only a few examples at a time.
    few = at_once or int(np.clip(_VALUES_AT_ONCE // max(1, exposed.values), 1, _AT_ONCE))
    for batch in (part for whole in batches for part in _parts(whole, few)):
        _add(measured, exposed(batch)[1])
        for step in (one for loop in steps for one in loop(batch)):
            _add(measured, step)
    if not measured:
        raise ValueError(
            "calibrate_with has no examples, or not a whole batch. Give at least one of inputs "
            "like those that the model will meet."
        )
    # What is zero on all examples lies on any grid; XNNPACK refuses the scale that an empty range
    # would give.
    measured = loop_states.with_carried(model, measured)
    return {name: limits if any(limits) else _UNIT for name, limits in measured.items()}


def _add(measured: dict[str, Range], tensors: Mapping[str, np.ndarray]) -> None:
    for name, values in tensors.items():
        if values.dtype.kind != "f":
            # No infinity fits an integer.
            values = values.astype(np.float64)
        ends = (float(values.min(initial=np.inf)), float(values.max(initial=-np.inf)))
        measured[name] = joined([measured.get(name, (np.inf, -np.inf)), ends])


def _parts(batch: Sequence[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    for start in range(0, len(batch[0]), size):
        yield [array[start : start + size] for array in batch]
