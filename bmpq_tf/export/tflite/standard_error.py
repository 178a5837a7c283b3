"""What C++ writes on standard error, kept from the user's screen."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator

from bmpq_tf import runtime_messages


@contextlib.contextmanager
def silenced() -> Iterator[Callable[[], str]]:
    """Keeps what is written on standard error, and yields a function that returns it so far; if a
    command crashes then, it is shown.
    """
    sys.stderr.flush()
    with tempfile.NamedTemporaryFile() as kept, runtime_messages.kept_in(kept.name):
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)

        def said() -> str:
            kept.seek(0)
            return kept.read().decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keeps it from the screen; a command shows it where it is asked for, or crashes."""
    if runtime_messages.is_filtering():
        with runtime_messages.held():
            yield
    elif runtime_messages.are_asked_for():
        yield
    else:
        with silenced():
            yield
