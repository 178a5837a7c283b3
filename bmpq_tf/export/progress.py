"""Which stage a long export is in, in a line on the screen."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console

# Shorter exports say nothing.
SECONDS = 5.0


class Progress:
    """Tells the stage that an export is in, once it has taken more than five seconds.

    Args:
        name: the model's.
        seconds: how long nothing is said.
        console: where it is said; by default standard error.
    """

    def __init__(self, name: str, seconds: float = SECONDS, console: Console | None = None):
        self._name, self._seconds = name, seconds
        self._console = console or Console(stderr=True, highlight=False)
        self._started = time.monotonic()

    @contextlib.contextmanager
    def stage(self, stage: Callable) -> Iterator[None]:
        """Lasts as long as a stage; says its name when the time is over, at once or while it runs.

        Args:
            stage: the stage's function, by whose name it is told.
        """
        left = self._seconds - (time.monotonic() - self._started)
        timer = threading.Timer(max(left, 0.0), self._say, [stage.__name__.replace("_", " ")])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _say(self, stage: str) -> None:
        took = time.monotonic() - self._started
        self._console.print(f"Export of '{self._name}': {stage}, after {took:.0f} s")
