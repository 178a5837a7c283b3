"""What a bisection tells at its end: the front, and why no budget was good enough."""

import pathlib
from typing import TYPE_CHECKING

from bmpq_tf.tuning.front import plot_front
from bmpq_tf.tuning.goal import Goal

if TYPE_CHECKING:
    from bmpq_tf.tuning.bisection_tuner import BisectionTuner


def none_is_good_enough(tuner: "BisectionTuner", goal: Goal) -> str:
    """Returns the message, which names the run that came nearest."""
    points = [point for _, point in tuner.points()]
    told = "Every run diverged: a smaller learning rate may help"
    if points:
        nearest = max(points, key=lambda point: (point.accuracy, point.compression))
        value = goal.value_of(nearest.accuracy)
        error = nearest.choices["error"]
        told = f"The nearest is {nearest.choices['budget']}: {goal.told(value, error)}"
        if goal.is_met(value):
            told += (
                f"; the margin adds {goal.margin:g} times the standard error, so that more "
                "validation data, or a smaller margin, would do"
            )
    return (
        f"No budget is good enough. Received: max_drop={goal.max_drop:g}, where the float model "
        f"has {goal.metric}={goal.float_value:.4g}. {told}. Begin in another "
        "folder with a larger max_drop, more epochs, larger budgets or wider candidate_bits."
    )


def plot(tuner: "BisectionTuner", goal: Goal, path: pathlib.Path, title: str) -> None:
    """Draws every run, the float model's value and what is tolerated."""
    points = [point for _, point in tuner.points()]
    if not points:
        return
    sign = 1 if goal.direction == "max" else -1
    lines = {
        "float": goal.scale * goal.float_value,
        "tolerance": goal.scale * goal.float_value - sign * goal.max_drop,
    }
    axis = f"{goal.metric} on the validation data{', %' if goal.is_share else ''}"
    plot_front(points, path, title, axis, sign * goal.scale, lines)
