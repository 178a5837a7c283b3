"""A process that answers line by line; another takes its place where it ends."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any


class Worker:
    """A Python program that may crash or hang.

    Args:
        command: its file and arguments.
        seconds: for an answer; after that it is killed.
        path: more places for modules, behind this process's.
        options: as `subprocess.Popen` takes them.
    """

    def __init__(
        self, command: Sequence[Any], seconds: float, path: Sequence[str] = (), **options: Any
    ):
        self._command, self._seconds, self._options = command, seconds, options
        self._path = os.pathsep.join([*sys.path, *path])
        self._process: subprocess.Popen | None = None

    def ask(self, line: str) -> tuple[str, str]:
        """Returns the line that answers a line, or nothing and how the process ended: `"late"`, or
        its exit code.
        """
        process = self._process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()
        timer = threading.Timer(self._seconds, lambda: (late.set(), process.kill()))
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = ""
        finally:
            timer.cancel()
        if answer:
            return answer, ""
        code = process.wait()
        self.close()
        return "", "late" if late.is_set() else str(code)

    def close(self) -> None:
        """Ends the process, if there is one."""
        if self._process is not None:
            # What was not sent yet finds nobody there.
            with contextlib.suppress(OSError):
                self._process.communicate()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # pyright: ignore[reportOptionalMemberAccess]
        self._process = None

    def _started(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, *map(str, self._command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": self._path},
            **self._options,
        )
