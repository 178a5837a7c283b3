"""Runs a notebook and keeps what is worth keeping of it: sources, and what they print and draw."""

import hashlib
import json
import pathlib
import re
import tempfile
import time
from collections.abc import Sequence

from bmpq_tf.files import replacing

# Says which sources the outputs are of.
_KEY = "sources"
# What is on the way, and after how many seconds; gone from a terminal once it is done.
_PROGRESS = re.compile(r"Export of '.*, after ")


class NotebookError(RuntimeError):
    """A cell failed, or the notebook took too long."""


def run(path: pathlib.Path, out: pathlib.Path, timeout: int) -> float:
    """Runs a notebook from top to bottom, in an empty folder, and writes it with its outputs.

    Args:
        path: of the notebook.
        out: where it goes; its folder is made.
        timeout: seconds that the whole may take.

    Returns:
        The seconds that it took.

    Raises:
        NotebookError: a cell failed or the time was over; nothing is written.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    notebook = nbformat.read(path, as_version=4)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
        )
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError) as error:
            raise NotebookError(f"'{path}' failed. {error}") from error
    seconds = time.monotonic() - begin
    if seconds > timeout:
        raise NotebookError(
            f"A notebook may take {timeout} seconds. Received: '{path}', which took {seconds:.0f}. "
            "Train for fewer epochs in it, or give more --timeout."
        )
    kept = cleaned(notebook)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        pathlib.Path(temporary).write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return seconds


def cleaned(notebook: dict) -> dict:
    """Returns the notebook without what differs from run to run and from machine to machine."""
    cells = [dict(cell) for cell in notebook["cells"]]
    for number, cell in enumerate(cells):
        cell["id"], cell["metadata"] = f"cell-{number}", {}
        cell["source"] = text_of(cell["source"]).splitlines(keepends=True)
        if cell["cell_type"] == "code":
            cell["outputs"] = _joined([_kept(output) for output in cell["outputs"]])
    return {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            _KEY: fingerprint(cells),
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _kept(output: dict) -> dict | None:
    """What a cell printed or drew; not what goes to standard error, where only runtimes speak."""
    if output["output_type"] == "stream":
        return None if output["name"] == "stderr" else {**output, "text": _plain(output["text"])}
    output = dict(output)
    if "metadata" in output:
        output["metadata"] = {}
    data = output.get("data", {})
    if _PROGRESS.match(text_of(data.get("text/plain", ""))):
        return None
    if "text/plain" in data:
        # Tables are told twice; the plain one is read everywhere.
        data = {key: value for key, value in data.items() if key != "text/html"}
        output["data"] = {**data, "text/plain": _plain(data["text/plain"])}
    return output


def _joined(outputs: Sequence[dict | None]) -> list[dict]:
    """Outputs in which what was printed in a row is one text, as lines."""
    joined: list[dict] = []
    for output in filter(None, outputs):
        if joined and output["output_type"] == joined[-1]["output_type"] == "stream":
            joined[-1]["text"] += output["text"]
        else:
            joined.append(output)
    return [
        {**output, "text": output["text"].splitlines(keepends=True)} if "text" in output else output
        for output in joined
    ]


def _plain(text: str | Sequence[str]) -> str:
    """Returns a text without colours, and without spaces at the ends of lines."""
    lines = re.sub(r"\x1b\[[\d;]*m", "", text_of(text)).split("\n")
    return "\n".join(line.rstrip() for line in lines)


def text_of(lines: str | Sequence[str]) -> str:
    """Returns what a notebook holds as one text or as lines."""
    return lines if isinstance(lines, str) else "".join(lines)


def fingerprint(cells: Sequence[dict]) -> str:
    """Returns what tells these cells' sources from others."""
    sources = [[cell["cell_type"], text_of(cell["source"])] for cell in cells]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]


def is_fresh(notebook: dict) -> bool:
    """Returns whether the outputs are those of the cells as they are now."""
    return notebook["metadata"].get(_KEY) == fingerprint(notebook["cells"])
