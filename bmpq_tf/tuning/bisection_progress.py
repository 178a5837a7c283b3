"""How far a bisection is, in lines on the screen, with the time that is left."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from bmpq_tf.allocation.budget import Budget
from bmpq_tf.progress import duration
from bmpq_tf.tuning.bisection import FULL, SHORT, short_runs_left
from bmpq_tf.tuning.goal import Goal

# A run that takes longer says in between where it is, on a terminal.
SECONDS = 10.0


class BisectionProgress:
    """Tells each run's begin and its result, and how much time is left: on a terminal every ten
    seconds.

    Args:
        goal: what is good enough.
        verbose: 0 says nothing.
        console: where it is said; by default standard error.
        clock: gives seconds.
    """

    def __init__(
        self,
        goal: Goal,
        verbose: int = 1,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._goal, self._verbose, self._clock = goal, verbose, clock
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._spent, self._trained = 0.0, 0
        self._name, self._epochs, self._after = "", 0, 0
        self._since = self._said = 0.0

    def start(self, budgets: Sequence[Budget], lengths: dict[str, int]) -> None:
        """The search begins, or goes on; `lengths` are the epochs of each kind of run."""
        goal, most = self._goal, short_runs_left({}, len(budgets))
        value = f"{goal.float_value:.2%}" if goal.is_share else f"{goal.float_value:.4g}"
        ends = f"{budgets[0]} to {budgets[-1]}" if len(budgets) > 1 else f"{budgets[0]} alone"
        self._say(
            f"float {goal.metric} {value}; {len(budgets)} budgets, {ends}: at most {most} short "
            f"runs of {lengths[SHORT]} epochs, and one of {lengths[FULL]}"
        )

    def begin(self, values: dict[str, Any], epochs: int, epochs_after: int) -> None:
        """A run begins.

        Args:
            values: of its trial.
            epochs: it has.
            epochs_after: of runs that may follow it.
        """
        self._name = values["budget"] + (" in full" if values["stage"] == FULL else "")
        self._epochs, self._after = epochs, epochs_after
        self._since = self._said = self._clock()
        self._say(f"{self._name}: {epochs} epochs{self._left(epochs)}")

    def epoch_ended(self, epoch: int, _: dict[str, float] | None = None) -> None:
        """An epoch, counted from 0, of the run is over."""
        now = self._clock()
        self._spent += now - self._since
        self._trained += 1
        self._since = now
        if self._console.is_terminal and now - self._said >= SECONDS:
            self._said = now
            self._say(
                f"{self._name}: epoch {epoch + 1} of {self._epochs}"
                f"{self._left(self._epochs - epoch - 1)}"
            )

    def end(self, value: float, error: float = 0.0) -> None:
        """The run is over, with this value of the metric and standard error of its drop."""
        verdict = "good enough" if self._goal.is_met(value, error) else "not good enough"
        self._say(f"{self._name}: {self._goal.told(value, error)}, {verdict}")

    def diverged(self) -> None:
        """The run's loss stopped being finite."""
        self._say(f"{self._name}: its training diverged, not good enough")

    def _left(self, epochs: int) -> str:
        if not self._trained:
            return ""
        seconds = self._spent / self._trained * (epochs + self._after)
        return f"; about {duration(seconds)} left"

    def _say(self, text: str) -> None:
        if self._verbose:
            self._console.print(f"smallest budget: {text}", markup=False)
