"""Columns of an int8 output that are one single value in the file, because its scale is that of
larger ones beside them.
"""

import dataclasses
from collections.abc import Iterable

import keras
import numpy as np

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.export.converter import origin
from bmpq_tf.wording import listed

# The share of a column's own size that rounding in float32 moves it by.
_ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True)
class ConstantColumns:
    """Columns of the last axis of one output in which the file answers a single value, while
    Keras's answers vary.

    Attributes:
        output: the output's name in the file, and its layer.
        columns: which.
        varies: by how much Keras's answers vary in each.
    """

    output: str
    columns: tuple[int, ...]
    varies: tuple[float, ...]

    def __str__(self) -> str:
        pairs = zip(self.columns, self.varies, strict=True)
        columns = [f"{column} ({apart:.3g})" for column, apart in pairs]
        return f"{self.output}: column {listed(columns)}"


class ColumnRanges:
    """The smallest and largest answers of both models in each column of one output.

    Args:
        model: the Keras model.
        number: of its output.
    """

    def __init__(self, model: keras.Model, number: int):
        self._tensor, self._number = model.outputs[number], number
        shape = self._tensor.shape
        columns = shape[-1] if len(shape) >= 2 and shape[-1] is not None else 0
        self._is_followed = columns > 1 and self._tensor.dtype.startswith(("float", "bfloat"))
        self._sums_to_one = True
        self._low, self._high = (
            np.full((2, columns if self._is_followed else 0), end, np.float32)
            for end in (np.inf, -np.inf)
        )

    def add(self, expected: np.ndarray, received: np.ndarray) -> None:
        """Takes in the answers of Keras and of the file to one batch."""
        if not self._is_followed:
            return
        self._sums_to_one &= bool(np.allclose(expected.sum(-1), 1, atol=1e-3))
        for number, answers in enumerate((expected, received)):
            rows = answers.reshape(-1, answers.shape[-1])
            self._low[number] = np.minimum(self._low[number], rows.min(0, initial=np.inf))
            self._high[number] = np.maximum(self._high[number], rows.max(0, initial=-np.inf))

    def constant(self) -> ConstantColumns | None:
        """Returns the columns in which only Keras's answers vary.

        Those of a softmax, where small values are no loss, are none.
        """
        if (
            not self._is_followed
            or self._sums_to_one
            or not np.isfinite([self._low, self._high]).all()
        ):
            return None
        varies = self._high[0] - self._low[0]
        size = np.maximum(np.abs(self._low[0]), np.abs(self._high[0]))
        columns = np.flatnonzero((self._high[1] == self._low[1]) & (varies > _ROUNDING * size))
        if not len(columns):
            return None
        name = (
            f"output_{self._number} of layer "
            f"{origin.described(keras_compat.producer(self._tensor)[0])}"
        )
        return ConstantColumns(name, tuple(map(int, columns)), tuple(map(float, varies[columns])))


def in_words(found: Iterable[ConstantColumns], examples: int) -> str:
    """Says which columns are constant and what to do about it; nothing where there are none."""
    outputs = "; ".join(map(str, found))
    return outputs and (
        "An int8 output has one scale, too coarse for columns that vary by less than its steps: "
        f"on {examples} examples the file answers one "
        "single value there, where Keras's answers vary by as much as stands beside them. "
        f"{outputs}. Give these columns an output of their own, "
        "or bring them to one range."
    )
