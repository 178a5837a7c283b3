"""Lines at the end of a file appear whole or not at all."""

import fcntl
import os
import pathlib


def append_line(path: str | os.PathLike, line: str) -> None:
    """Appends a line whole, whoever else appends.

    One that a kill has cut short makes way for it.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(path.read_bytes().rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def whole_lines(path: str | os.PathLike) -> list[str]:
    """Returns the lines of a file that `append_line` writes, without one that is being written or
    was cut short; none if there is no file.
    """
    path = pathlib.Path(path)
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()
