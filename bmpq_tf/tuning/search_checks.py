"""What of a search for the smallest budget is wrong before anything is trained."""

import importlib.util
import os

from bmpq_tf.arguments import check_known, real, whole
from bmpq_tf.export.kernels.storage import MODES
from bmpq_tf.tuning.bisection import FULL, SHORT


def check(optimize_for: str, margin) -> None:
    """Raises what `smallest_budget` raises for the extra, the environment and these arguments."""
    check_installed()
    check_alone()
    check_known("optimize_for", optimize_for, MODES)
    check_margin(margin)


def lengths(epochs, full_epochs, float_epochs) -> dict[str, int]:
    """Returns the epochs of each kind of run.

    Raises:
        ValueError: a number is none, or leaves no room for a decision.
    """
    full = 3 * epochs if full_epochs is None and whole(epochs) is not None else full_epochs
    lengths = {}
    for name, value, least in (
        ("epochs", epochs, 2),
        ("full_epochs", full, 2),
        ("float_epochs", float_epochs, 0),
    ):
        number = whole(value)
        if number is None or number < least:
            raise ValueError(
                f"{name} is a whole number of {least} or more. Received: {name}={value!r}."
            )
        lengths[name] = number
    return {
        SHORT: lengths["epochs"],
        FULL: lengths["full_epochs"],
        "float": lengths["float_epochs"],
    }


def check_installed() -> None:
    """Raises ModuleNotFoundError where the extra `tune` is not there."""
    for module in ("keras_tuner", "matplotlib"):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f"smallest_budget needs {module}, which is not installed. Install it: "
                "pip install 'bmpq_tf[tune]'.",
                name=module,
            )


def check_alone() -> None:
    """Raises ValueError where keras-tuner is asked to spread the search over processes."""
    if name := os.environ.get("KERASTUNER_TUNER_ID"):
        raise ValueError(
            "Each run of a bisection needs the result of the one before, so it is not spread over "
            f"processes. Received: KERASTUNER_TUNER_ID={name!r}. Unset it."
        )


def check_margin(margin) -> None:
    """Raises ValueError for a margin that is no number of 0 or more."""
    number = real(margin)
    if number is None or not 0 <= number < float("inf"):
        raise ValueError(
            "margin is how many standard errors are added to a drop, a number of 0 or more. "
            f"Received: margin={margin!r}."
        )
