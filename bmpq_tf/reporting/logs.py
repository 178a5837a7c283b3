"""The log of a training run, in the forms in which people have it."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from bmpq_tf.arguments import real, whole

FORMS = (
    "what fit() returned, its history, a list with a dict for each epoch, or a BMPQCallback's "
    "history"
)
Column = Sequence[float | None]


def read_history(
    history: Any,
) -> tuple[dict[str, Column], tuple[int, ...], list[dict] | None]:
    """Returns the columns of a log with their epochs, counted from 1, and allocations, if it is
    those that are given.

    Args:
        history: Keras's `History`, its `history`, a list of dicts with one for each epoch, or the
            allocations of `BMPQCallback.history`, or `None`.

    Raises:
        ValueError: it is none of these.
    """
    if history is None:
        return {}, (), None
    told, epochs = getattr(history, "history", history), getattr(history, "epoch", None)
    if isinstance(told, Mapping):
        columns = {str(name): _column(values, history) for name, values in told.items()}
        length = max(map(len, columns.values()), default=0)
        numbers = _epochs(epochs, length)
        spread = {name: _spread(name, values, numbers) for name, values in columns.items()}
        return {name: one for name, one in spread.items() if one is not None}, numbers, None
    if not _is_listed(told) or not all(isinstance(row, Mapping) for row in told):
        raise _unknown(history)
    rows = list(told)
    if rows and all(isinstance(row.get("bits"), Mapping) for row in rows):
        return {}, (), [dict(row) for row in rows]
    names = dict.fromkeys(str(name) for row in rows for name in row if name != "epoch")
    columns = {name: _column([row.get(name) for row in rows], history) for name in names}
    return columns, _epochs([row.get("epoch") for row in rows], len(rows)), None


def _column(values: Any, history: Any) -> Column:
    """The numbers of one name; what is none, or not finite, is a gap."""
    if not _is_listed(values):
        raise _unknown(history)
    numbers = [real(value) for value in values]
    return tuple(
        number if number is not None and math.isfinite(number) else None for number in numbers
    )


def _spread(name: str, values: Column, epochs: tuple[int, ...]) -> Column | None:
    """With `validation_freq=2` Keras has a value for every second epoch: gaps go between them.

    `None` where there are no values; with a warning where more than one frequency, or none,
    explains so many: their epochs are not known. A list in `validation_freq` is told from a
    frequency only where it has another number of epochs.
    """
    if len(values) == len(epochs):
        return values
    if not values:
        return None
    judged = {
        tuple(epoch for epoch in epochs if epoch % every == 0)
        for every in range(2, max(epochs) + 1)
    }
    fitting = [found for found in judged if len(found) == len(values)]
    if len(fitting) != 1:
        warnings.warn(
            f"The epochs of '{name}' are not known, so the report leaves it out: a history does "
            f"not tell which {len(values)} of {len(epochs)} epochs it is of. Give rows with their "
            "epochs, such as [{'epoch': 9, 'val_loss': 0.4}, ...], as history=.",
            stacklevel=2,
        )
        return None
    by_epoch = dict(zip(fitting[0], values, strict=True))
    return tuple(by_epoch.get(epoch) for epoch in epochs)


def _is_listed(values: Any) -> bool:
    return hasattr(values, "__len__") and hasattr(values, "__getitem__") and type(values) is not str


def _epochs(given: Any, length: int) -> tuple[int, ...]:
    """Counted from 1: those of the log, or, where it has none, from the first on."""
    numbers = [whole(value) for value in given or ()]
    if len(numbers) == length and None not in numbers:
        return tuple(number + 1 for number in numbers if number is not None)
    return tuple(range(1, length + 1))


def _unknown(history: Any) -> ValueError:
    return ValueError(
        f"history is {FORMS}. Received: history={str(history)[:200]!r} (of type {type(history)})."
    )
