"""What a decision goes by, by name or callable, and the least gain and the time that it takes."""

from collections.abc import Callable, Mapping, Sequence

from bmpq_tf.allocation.sensitivity import OBJECTIVES, Measurement, estimate_costs
from bmpq_tf.arguments import real

# By kernel path, the estimated loss increase at each of its candidates.
Costs = Mapping[str, Sequence[float]]


Sensitivity = Callable[[Sequence[Measurement]], Costs]


def costs_by(sensitivity: "str | Sensitivity") -> Sensitivity:
    """Returns a sensitivity as a callable.

    Raises:
        ValueError: a name that is no objective, something that cannot be called, or a callable
            whose attribute `objective` is none.
    """
    if callable(sensitivity):
        if (told := objective_of(sensitivity)) not in OBJECTIVES:
            raise ValueError(
                "The sensitivity's attribute objective says how its figures are told. Received: "
                f"objective={told!r}. Known: {', '.join(OBJECTIVES)}."
            )
        return sensitivity
    if sensitivity not in OBJECTIVES:
        raise ValueError(
            f"Unknown sensitivity. Received: sensitivity={sensitivity!r}. Known: "
            f"{', '.join(OBJECTIVES)}, or a callable that takes "
            "bmpq_tf.Measurement objects and returns costs by kernel path."
        )
    return lambda measured: {
        one.path: estimate_costs(one, one.candidates, sensitivity) for one in measured
    }


def checked_arguments(min_improvement, time_limit) -> tuple[float, float]:
    """Returns both as floats. Raises ValueError for what is no share, or no number of seconds."""
    share, seconds = real(min_improvement), real(time_limit)
    if share is None or not 0.0 <= share < 1.0:
        raise ValueError(
            "min_improvement is a share, from 0 to below 1. Received: "
            f"min_improvement={min_improvement!r}."
        )
    if seconds is None or not seconds >= 0.0:
        raise ValueError(
            f"time_limit is a number of seconds. Received: time_limit={time_limit!r}. Give "
            "math.inf for none."
        )
    return share, seconds


def objective_of(sensitivity: "str | Sensitivity") -> str:
    """Returns the objective by which the figures of the history are told.

    That of a callable of the user's is first order, unless it has an attribute `objective`.
    """
    if isinstance(sensitivity, str):
        return sensitivity
    return getattr(sensitivity, "objective", "first_order")
