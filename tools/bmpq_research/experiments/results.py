"""The results of a grid: one JSON line a cell, appended whole, read by several processes."""

import fcntl
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bmpq_research.experiments.compact import compacted, expanded
from bmpq_research.experiments.grid import Cell
from bmpq_research.experiments.train_config import TrainConfig
from bmpq_research.lines import append_line, whole_lines
from bmpq_tf.wording import listed


def read_results(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Returns the results in a file by their cells' keys; none if there is no file.

    Raises:
        ValueError: a line is no result.
    """
    results = {}
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            result = expanded(json.loads(line))
            results[result["cell"]] = result
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"A line of the results file is no result. Received: line {number} of '{path}'. "
                "Take the line away."
            ) from None
    return results


def append_result(path: str | os.PathLike, result: dict[str, Any]) -> None:
    """Appends a result in its short form, a line, whole, whoever else appends."""
    append_line(path, json.dumps(compacted(result)))


def check_results(
    results: dict[str, dict[str, Any]], cells: Sequence[Cell], path: str | os.PathLike
) -> None:
    """Refuses results of another version of the config; cells may have been added since.

    Raises:
        ValueError: a cell is not in the config any more, or its settings changed; the message says
            which.
    """
    known = {cell.key: cell.settings for cell in cells}
    defaults = {**Cell("", "", TrainConfig()).settings}
    advice = f"Give another --out, or the config that '{path}' was made with."
    gone = sorted(set(results) - set(known))
    if gone:
        raise ValueError(
            "The results are of another version of the config. Received: results of "
            f"{listed(gone)}, which the config does not have. {advice}"
        )
    for key, result in results.items():
        # A setting that a later bmpq_tf has added was at its default then.
        then = {**defaults, **result["config"]}
        different = [name for name in then if then[name] != known[key].get(name)]
        if different:
            was = ", ".join(f"{name}={then[name]!r}" for name in different)
            now = ", ".join(f"{name}={known[key].get(name)!r}" for name in different)
            raise ValueError(
                f"The results are of another version of the config. Received: {now}; {key} was run "
                f"with {was}. {advice}"
            )


@contextmanager
def locked(path: str | os.PathLike) -> Iterator[bool]:
    """Yields whether this process now holds a lock file.

    The system frees it when the process ends, however it ends.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
