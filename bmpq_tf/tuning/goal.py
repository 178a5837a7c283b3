"""What is good enough: a metric, which way is better, and how far it may fall."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from bmpq_tf._compat import keras_metrics
from bmpq_tf.arguments import real

_K: Any = keras.metrics
# From 0 to 1; told in percent, and their drops in points.
_SHARES = (
    _K.Accuracy,
    _K.AUC,
    _K.BinaryAccuracy,
    _K.BinaryIoU,
    _K.CategoricalAccuracy,
    _K.FBetaScore,
    _K.IoU,
    _K.MeanIoU,
    _K.OneHotIoU,
    _K.OneHotMeanIoU,
    _K.Precision,
    _K.PrecisionAtRecall,
    _K.Recall,
    _K.RecallAtPrecision,
    _K.SensitivityAtSpecificity,
    _K.SparseCategoricalAccuracy,
    _K.SparseTopKCategoricalAccuracy,
    _K.SpecificityAtSensitivity,
    _K.TopKCategoricalAccuracy,
)
# Keras does not say of these that less is better.
_DOWN = (_K.FalseNegatives, _K.FalsePositives)


@dataclasses.dataclass(frozen=True)
class Goal:
    """A tolerance.

    Attributes:
        metric: its name, as `evaluate` gives it.
        direction: `"max"` or `"min"`: which way is better.
        is_share: from 0 to 1, so that drops are in points, hundredths of it.
        float_value: the float model's.
        max_drop: how far it may be worse, in points or in the metric's own unit.
        margin: standard errors of a drop that are added to it.
        float_parts: the float model's metric on parts of the data.
    """

    metric: str
    direction: str
    is_share: bool
    float_value: float
    max_drop: float
    margin: float = 0.0
    float_parts: tuple[float, ...] = ()

    @property
    def scale(self) -> float:
        """What the metric is multiplied with where it is told."""
        return 100.0 if self.is_share else 1.0

    def drop(self, value: float) -> float:
        """Returns how much worse than the float model's, in points or the metric's own unit."""
        lost = self.float_value - value if self.direction == "max" else value - self.float_value
        return self.scale * lost

    def error(self, parts: Sequence[float]) -> float:
        """Returns the standard error of a drop, from the metric on the same parts of the data as
        the float model's; 0 where there are no parts.
        """
        if not self.float_parts or len(parts) != len(self.float_parts):
            return 0.0
        apart = np.subtract(self.float_parts, parts)
        return self.scale * float(np.std(apart, ddof=1)) / math.sqrt(len(apart))

    def is_met(self, value: float, error: float = 0.0) -> bool:
        """Whether a value, whose drop has this standard error, is within the tolerance."""
        return self.drop(value) + self.margin * error <= self.max_drop + 1e-6

    def value_of(self, score: float) -> float:
        """Returns the metric of a score, of which more is always better."""
        return score if self.direction == "max" else -score

    def check_excludes(self) -> None:
        """Raises ValueError if any model is within the tolerance, or the float model's value is no
        number to compare with.
        """
        if not math.isfinite(self.float_value):
            raise ValueError(
                f"The float model's metric is not finite. Received: {self.metric}="
                f"{self.float_value} on the validation data. Train it so that it is."
            )
        lost = self.scale * self.float_value
        if self.direction == "max" and 0 <= lost <= self.max_drop:
            unit = "points" if self.is_share else "the metric's own unit"
            raise ValueError(
                f"Any model is within this tolerance. Received: max_drop={self.max_drop:g} in "
                f"{unit}, where the float model has {self.metric}={self.float_value:.4g}. Give a "
                "smaller max_drop."
            )

    def told(self, value: float, error: float = 0.0) -> str:
        """Returns a value, and how far it is from the float model's, in words."""
        drop = self.drop(value)
        side = "below float" if (drop >= 0) == (self.direction == "max") else "above float"
        if self.is_share:
            sure = f" ± {error:.2f}" if error else ""
            return f"{self.metric} {value:.2%}, {abs(drop):.2f}{sure} points {side}"
        sure = f" ± {error:.2g}" if error else ""
        return f"{self.metric} {value:.4g}, {abs(drop):.4g}{sure} {side}"


def goal_for(
    model: keras.Model, values: dict[str, float], metric: str, direction: str | None, max_drop
) -> Goal:
    """Returns the tolerance that is asked for.

    Args:
        model: the float model, which was evaluated.
        values: what `evaluate` gave, by name.
        metric, direction, max_drop: as `smallest_budget` takes them.

    Raises:
        ValueError: the model has no such metric, its direction is not known, or the tolerance is no
            number of 0 or more.
    """
    drop = checked_drop(max_drop)
    if metric not in values:
        raise ValueError(
            f"The model has no such metric. Received: metric={metric!r}. It has "
            f"{', '.join(values)}. Compile it with that metric, or name one of these."
        )
    known, is_share = _nature(model, metric)
    if direction is not None and direction not in ("max", "min"):
        raise ValueError(
            "direction is 'max', where more is better, or 'min', where less is. Received: "
            f"direction={direction!r}."
        )
    if direction is None and known is None:
        raise ValueError(
            f"It is not known whether more or less of this metric is better. Received: "
            f"metric={metric!r}. Say direction='max' or direction='min'."
        )
    goal = Goal(metric, direction or str(known), is_share, values[metric], drop)
    if is_share and drop >= 100:
        goal.check_excludes()
    return goal


def checked_drop(max_drop) -> float:
    """Returns a tolerance as a number.

    Raises:
        ValueError: it is none of 0 or more.
    """
    drop = real(max_drop)
    if drop is None or not 0 <= drop < float("inf"):
        raise ValueError(
            "max_drop is a number of 0 or more: points of an accuracy, or the metric's own unit. "
            f"Received: max_drop={max_drop!r}."
        )
    return drop


def _nature(model: keras.Model, name: str) -> tuple[str | None, bool]:
    """Which way is better, if that is known, and whether it is a share."""
    if name == "loss" or name.endswith("_loss"):
        return "min", False
    metrics = [one for metric in model.metrics for one in getattr(metric, "metrics", [metric])]
    # Those of a model of several outputs have the output's name before theirs.
    named = [one for one in metrics if name == one.name]
    for metric in named or [one for one in metrics if name.endswith(f"_{one.name}")]:
        if isinstance(metric, _SHARES):
            return "max", True
        if direction := keras_metrics.direction(metric):
            return direction, False
        if isinstance(metric, _DOWN):
            return "min", False
    return None, False
