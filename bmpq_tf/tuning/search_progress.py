"""How far a search for a front is, in a line a trial, with the time that is left."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from bmpq_tf.progress import duration


class SearchProgress:
    """Tells each trial's begin and its result.

    Args:
        trials: how many there will be, those of earlier and other processes included.
        verbose: 0 says nothing.
        console: where it is said; by default standard error.
        clock: gives seconds.
    """

    def __init__(
        self,
        trials: int,
        verbose: int = 1,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.verbose = verbose
        self._trials, self._clock = trials, clock
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._begun = clock()
        self._ended, self._name = 0, ""

    def begin(self, number: int, chosen: dict[str, Any]) -> None:
        """The trial of this number, counted from 1, begins with these choices."""
        self._name = f"trial {number} of {self._trials}"
        left = ""
        if self._ended:
            mean = (self._clock() - self._begun) / self._ended
            left = f"; about {duration(mean * (self._trials - number + 1))} left"
        self._say(
            f"{chosen['budget']}, {chosen['candidate_bits']} bits, learning rate "
            f"{chosen['learning_rate']:.3g}, {chosen['schedule']}{left}"
        )

    def end(self, accuracy: float, compression: float) -> None:
        """The trial is over."""
        self._ended += 1
        self._say(f"accuracy {accuracy:.2%} at {compression:.2f}x")

    def failed(self, why: str) -> None:
        """The trial could not be trained."""
        self._ended += 1
        self._say(why)

    def _say(self, text: str) -> None:
        if self.verbose:
            self._console.print(f"{self._name}: {text}", markup=False)
