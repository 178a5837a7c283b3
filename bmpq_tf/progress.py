"""How far long work is and how much time is left: a line below what is printed, on a terminal only.

    with progress.shown("Export of 'net'") as work:
        work.at("verify")
        for batch in progress.counted(batches, total=63):
            ...

Work inside of other work gets a line of its own below. Nothing is shown in the first five seconds,
where neither standard error nor standard output is a terminal, or with `verbose=0`; the lines are
gone when the work is done.
"""

import contextlib
import contextvars
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich import progress as bars
from rich.console import Console
from rich.text import Text

# Shorter work shows nothing.
SECONDS = 5.0
_Item = TypeVar("_Item")


class Work:
    """One piece of work; every call is cheap, and does nothing where there is no terminal.

    Args:
        screen: where it is shown; `None` for nowhere.
        what: what is done, in words.
    """

    def __init__(self, screen: "_Screen | None", what: str):
        self._screen, self._what, self._words = screen, what, what
        self._line: bars.TaskID | None = None
        self.count()

    def at(self, stage: str, total: float | None = None) -> None:
        """A stage of the work begins, of so many steps."""
        self._words = f"{self._what}: {stage}"
        self.count(total)

    def count(self, total: float | None = None, done: float = 0.0) -> None:
        """Counting begins; the time left goes by what follows."""
        self._since, self._first, self._total = time.monotonic(), done, total
        if self._screen:
            # A line of rich's cannot forget its total.
            self.end()
            self._line = self._screen.add(self._words, total, done, self._since)

    def reached(self, done: float) -> None:
        """So many steps are done."""
        now, new, ends = time.monotonic(), done - self._first, None
        if self._total is not None and new > 0:
            ends = now + (now - self._since) / new * (self._total - done)
        if self._screen and self._line is not None:
            self._screen.bars.update(self._line, completed=done, ends=ends)

    def end(self) -> None:
        if self._screen and self._line is not None:
            self._screen.bars.remove_task(self._line)
        self._line = None


_screen: contextvars.ContextVar["_Screen | None"] = contextvars.ContextVar("screen", default=None)
_work: contextvars.ContextVar[Work | None] = contextvars.ContextVar("work", default=None)
_is_quiet: contextvars.ContextVar[bool] = contextvars.ContextVar("is_quiet", default=False)


@contextlib.contextmanager
def shown(what: str, verbose: int = 1) -> Iterator[Work]:
    """Shows work while the block runs.

    Args:
        what: what is done, in words.
        verbose: 0 shows nothing, of work inside of it neither.
    """
    outer, is_quiet = _screen.get(), _is_quiet.get() or not verbose
    console = None if is_quiet or outer else _terminal()
    screen = _Screen(console) if console else None if is_quiet else outer
    work = Work(screen, what)
    tokens = _screen.set(screen), _work.set(work), _is_quiet.set(is_quiet)
    try:
        yield work
    finally:
        for variable, token in zip((_screen, _work, _is_quiet), tokens, strict=True):
            variable.reset(token)  # pyright: ignore[reportArgumentType]
        work.end()
        if screen and screen is not outer:
            screen.close()


def counted(items: Iterable[_Item], total: int | None = None) -> Iterator[_Item]:
    """Yields the items and shows at the work of the moment how many of them are done.

    Args:
        items: of any kind.
        total: how many there are, if that is known; by default their length, where they have one.
    """
    work = _work.get()
    if total is None and isinstance(items, Sized):
        # A data set's may not be known.
        with contextlib.suppress(TypeError):
            total = len(items)
    if work:
        work.count(total)
    for number, item in enumerate(items, start=1):
        yield item
        if work:
            work.reached(number)
    if work:
        work.count()


def duration(seconds: float) -> str:
    """Returns a time in words, such as `1 min 20 s`."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


class _TimeLeft(bars.ProgressColumn):
    def render(self, task: bars.Task) -> Text:
        now = time.monotonic()
        ends = task.fields.get("ends")
        if ends is not None:
            return Text(f"about {duration(max(0.0, ends - now))} left")
        return Text(f"{duration(now - task.fields['began'])} so far")


class _Count(bars.ProgressColumn):
    def render(self, task: bars.Task) -> Text:
        if task.total is None:
            return Text("")
        return Text(f"{int(task.completed):,} of {int(task.total):,}")


class _Screen:
    """The lines of all work that is going on, drawn from some moment on."""

    def __init__(self, console: Console):
        self.bars = bars.Progress(
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(bar_width=24),
            _Count(),
            _TimeLeft(),
            console=console,
            transient=True,
            refresh_per_second=4,
            # What others print goes above the lines, unless it goes to a file.
            redirect_stdout=_is_terminal(sys.stdout),
            redirect_stderr=_is_terminal(sys.stderr),
        )
        self._lock, self._is_closed = threading.Lock(), False
        self._timer = threading.Timer(SECONDS, self._start)
        self._timer.daemon = True
        self._timer.start()

    def add(self, what: str, total: float | None, done: float, began: float) -> bars.TaskID:
        # rich names its type int, and counts shares of a step all the same.
        return self.bars.add_task(what, total=total, completed=done, ends=None, began=began)  # pyright: ignore[reportArgumentType]

    def close(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._is_closed = True
            self.bars.stop()
        self.bars.console.file.close()

    def _start(self) -> None:
        with self._lock:
            if not self._is_closed:
                self.bars.start()


def _terminal() -> Console | None:
    """A console on the terminal, if there is one: on a descriptor of its own, because the runtimes'
    are taken away now and then (`bmpq_tf.export.tflite.standard_error`).
    """
    for stream in (sys.stderr, sys.stdout):
        if _is_terminal(stream):
            file = os.fdopen(os.dup(stream.fileno()), "w", encoding=stream.encoding)
            console = Console(file=file, highlight=False, force_jupyter=False)
            if console.is_terminal and not console.is_dumb_terminal:
                return console
            file.close()
    return None


def _is_terminal(stream) -> bool:
    try:
        return os.isatty(stream.fileno())
    # A notebook's, a test's, or one that is closed.
    except (AttributeError, OSError, ValueError):
        return False
