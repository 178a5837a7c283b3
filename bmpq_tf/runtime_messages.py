"""What TensorFlow, LiteRT and what they are built of write on standard error, kept off the screen
of a command.

They write from C++, on file descriptor 2, some of it while they are imported. An environment
variable has TensorFlow say less, but not all that it is built of; the rest goes through a filter,
which is this file run as a program. It drops notes and warnings in the forms that these runtimes
write them in, and shows everything else at once. If the command crashes, it shows what it dropped,
too. What Python writes does not go through it.

BMPQ_RUNTIME_MESSAGES=1 shows everything, and so does a TF_CPP_MIN_LOG_LEVEL of 0 or 1.
"""

import atexit
import collections
import contextlib
import itertools
import os
import re
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator

VARIABLE = "BMPQ_RUNTIME_MESSAGES"
_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# Keras gives `shuffle=True` itself, and then says that it does not hold for data sets.
_SHUFFLE = "`shuffle=True` was passed, but will be ignored"
NOISE = re.compile(
    # absl: I0000 00:00:1764459183.123456   12345 file.cc:12] ...
    rb"[IW]\d{4} \d\d:\d\d:[\d.]+ +\d+ \S+:\d+\] "
    # TensorFlow: 2026-11-29 23:32:59.123456: W tensorflow/file.cc:12] ...
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:[\d.]+: [IW] \S+:\d+\] "
    # TensorFlow Lite and LiteRT: INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
    rb"|(?:INFO|VERBOSE|WARNING): "
)
# Between the command and its filter.
_MARK = b"\0bmpq:"
_HOLD, _RELEASE, _END = b"hold", b"release", b"end"
_KEEP, _FORGET = b"keep ", b"forget"
_CRASHED = b"What the runtimes said before the end:\n"
_DROPPED_LINES = 200
# A line that stays without its end for so long is shown as it is.
_SECONDS = 0.2

_running: list[subprocess.Popen] = []


def is_command() -> bool:
    """Whether this process was started as one of the installed commands, or as a script of the
    checkout's `tools`.
    """
    as_module = any(
        first == "-m" and second.startswith("bmpq_tf.cli")
        for first, second in itertools.pairwise(sys.orig_argv)
    )
    folder, name = os.path.split(os.path.abspath(sys.argv[0] if sys.argv else ""))
    tools = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tools")
    return as_module or name.startswith("bmpq-") or folder == tools


def are_asked_for() -> bool:
    """Whether the user wants to see them."""
    return os.environ.get(VARIABLE, "0") not in ("", "0")


def start() -> None:
    """Keeps them off the screen from now on, unless they are asked for; best before TensorFlow is
    imported.
    """
    if are_asked_for() or os.environ.get(_LEVEL) in ("0", "1") or _running:
        return
    os.environ.setdefault(_LEVEL, "3")
    warnings.filterwarnings("ignore", message=_SHUFFLE)
    try:
        screen = os.dup(2)
    except OSError:
        # There is no standard error.
        return
    taken, given = os.pipe()
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    program = [sys.executable, "-I", "-S", __file__]
    process = subprocess.Popen(program, stdin=taken, stdout=subprocess.DEVNULL)
    os.dup2(given, 2)
    os.close(taken)
    os.close(given)
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr = open(screen, "w", 1, encoding, "backslashreplace", closefd=False)  # noqa: SIM115
    _running.append(process)
    atexit.register(_stop, screen, os.getpid())


def is_filtering() -> bool:
    """Whether a filter runs."""
    return bool(_running)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Drops everything that is written on file descriptor 2, where a filter runs."""
    _tell(_HOLD)
    try:
        yield
    finally:
        _tell(_RELEASE)


@contextlib.contextmanager
def kept_in(path: str) -> Iterator[None]:
    """Has the filter show a file if the command crashes in the block."""
    _tell(_KEEP + os.fsencode(path))
    try:
        yield
    finally:
        _tell(_FORGET)


def _tell(what: bytes) -> None:
    if _running:
        os.write(2, _MARK + what + b"\n")


def _stop(screen: int, pid: int) -> None:
    """The command ends as it should, so that nothing more needs to be shown."""
    if pid != os.getpid():
        return
    _tell(_END)
    os.dup2(screen, 2)
    # A process that this one has started may keep the filter's input open.
    with contextlib.suppress(subprocess.TimeoutExpired):
        _running.pop().wait(1.0)


class _Filter:
    """Shows lines, or keeps them for the case of a crash."""

    def __init__(self):
        self._dropped: collections.deque[bytes] = collections.deque(maxlen=_DROPPED_LINES)
        self._files: list[bytes] = []
        self._holds, self._has_ended = 0, False

    def line(self, line: bytes) -> None:
        text, mark, told = line.partition(_MARK)
        if text.strip(b"\n") or not mark:
            if self._holds or NOISE.match(text):
                self._dropped.append(text if text.endswith(b"\n") else text + b"\n")
            else:
                _show(text)
        if mark:
            word = told.rstrip(b"\n")
            if word.startswith(_KEEP):
                self._files.append(word.removeprefix(_KEEP))
            elif word == _FORGET:
                self._files.pop()
            self._holds += (word == _HOLD) - (word == _RELEASE)
            self._has_ended = word == _END

    def closed(self) -> None:
        if self._has_ended:
            return
        for path in self._files:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                self._dropped.extend(file.read().splitlines(keepends=True))
                os.unlink(path)
        if self._dropped:
            _show(_CRASHED + b"".join(self._dropped))


def _show(text: bytes) -> None:
    while text:
        text = text[os.write(2, text) :]


def _filter() -> None:
    # Both are for the command; this ends when it has ended.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    shown, rest = _Filter(), b""
    while True:
        if rest and not select.select([0], [], [], _SECONDS)[0]:
            shown.line(rest)
            rest = b""
        chunk = os.read(0, 65536)
        *lines, rest = (rest + chunk).splitlines(keepends=True) or [b""]
        if rest.endswith(b"\n"):
            lines, rest = [*lines, rest], b""
        for line in lines:
            shown.line(line)
        if not chunk:
            if rest:
                shown.line(rest)
            shown.closed()
            return


if __name__ == "__main__":
    _filter()
