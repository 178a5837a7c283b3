"""Runs the cells of a grid that have no result yet, each in a process of its own."""

import collections
import multiprocessing
import os
import pathlib
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from bmpq_research.datasets import DatasetNotFoundError
from bmpq_research.experiments.cell import OtherDataError, forget_backup, run_cell
from bmpq_research.experiments.grid import Cell, file_name
from bmpq_research.experiments.methods import METHODS
from bmpq_research.experiments.results import append_result, check_results, locked, read_results
from bmpq_research.experiments.tfmot_peer import MissingPeerError
from bmpq_tf.cli.program import FOR_PEOPLE
from bmpq_tf.progress import duration

_POLL_SECONDS = 10.0
# Polls in which nobody works on any cell, after which nothing is waited for; between two cells a
# process holds no lock for a moment.
_PATIENCE = 3
# The exit status of a cell whose data set is not there, or is another one, which no other cell on
# it would find either.
_NO_DATA = 3


def compare(
    cells: Sequence[Cell],
    out: str | os.PathLike,
    *,
    grid: Sequence[Cell] | None = None,
    command: str = "",
    threads: int = 0,
    verbose: int = 2,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Runs cells until each has a result; several processes may work on the same grid and file.

    A cell runs in a process of its own, so that memory is its own and a crash costs one cell; a
    lock file keeps others off it.

    Args:
        cells: the ones to run, in this order.
        out: the JSON-lines file that results are appended to; backups go to the folder of that name
            with `.work` added.
        grid: every cell of the config, where `cells` are not all.
        command: kept with each result.
        threads: that TensorFlow may use in a cell; 0 leaves it the choice.
        verbose: as Keras's.
        say: where progress is told.

    Returns:
        The keys of the cells that have no result: what their method needs is not installed, their
            process ended badly, or a cell that they
        need came to nothing or is in nobody's hands.

    Raises:
        ValueError: the file holds results of another version of the config.
    """
    out = pathlib.Path(out)
    work = pathlib.Path(f"{out}.work")
    done = read_results(out)
    failed = _not_installed([cell for cell in cells if cell.key not in done], say)
    idle_polls = 0
    while True:
        results = read_results(out)
        check_results(results, grid or cells, out)
        open_cells = [cell for cell in cells if cell.key not in results and cell.key not in failed]
        lost = [cell for cell in open_cells if _lost(cell, results, failed)]
        for cell in lost:
            say(
                f"{cell.key}: not run, because it needs "
                f"{' and '.join(_lost(cell, results, failed))}, which came to nothing."
            )
        failed |= {cell.key for cell in lost}
        ready = [
            cell
            for cell in open_cells
            if cell not in lost and all(key in results for key in cell.needs)
        ]
        chosen = next((cell for cell in ready if _is_free(cell, work)), None)
        waiting = [cell for cell in open_cells if cell not in lost]
        if chosen is not None:
            idle_polls = 0
            left = _left(waiting, results)
            say(f"{len(results)} of {len(grid or cells)} cells are done{left}; {chosen.key}")
            code = _in_a_process(
                chosen, _budget(chosen, results), out, work, command, threads, verbose
            )
            if code:
                alike = _alike(chosen, open_cells) if code == _NO_DATA else [chosen]
                say(_ending(chosen, code, len(alike)))
                failed |= {cell.key for cell in alike}
        elif waiting and idle_polls < _PATIENCE:
            idle_polls = (
                idle_polls + 1 if all(_is_free(cell, work) for cell in grid or cells) else 0
            )
            time.sleep(_POLL_SECONDS)
        elif waiting:
            for cell in waiting:
                lacking = " and ".join(key for key in cell.needs if key not in results)
                say(
                    f"{cell.key}: not run, because it needs {lacking}, which has no result, was "
                    "not chosen, and nobody is running."
                )
            failed |= {cell.key for cell in waiting}
        else:
            return sorted(failed)


def _not_installed(cells: Sequence[Cell], say: Callable[[str], None]) -> set[str]:
    """The cells whose method cannot run here, told once a method.

    Before anything trains, since an installation can be mended at once.
    """
    lacking: set[str] = set()
    for method in dict.fromkeys(cell.method for cell in cells):
        try:
            METHODS[method].check()
        except MissingPeerError as error:
            keys = [cell.key for cell in cells if cell.method == method]
            say(f"{method}: {error} Until then {_counted(len(keys))} not run.")
            lacking |= set(keys)
    return lacking


def _counted(cells: int) -> str:
    return "its cell is" if cells == 1 else f"its {cells} cells are"


def _alike(cell: Cell, cells: Sequence[Cell]) -> list[Cell]:
    """The cells that want the same images."""
    return [other for other in cells if other.config.dataset == cell.config.dataset]


def _ending(cell: Cell, code: int, alike: int) -> str:
    if code < 0:
        return (
            f"{cell.key}: its process ended with {signal.Signals(-code).name}; see above. Run "
            "the command again to go on with it."
        )
    if code == _NO_DATA:
        return (
            f"{cell.config.dataset} is not there or not the same, see above: {_counted(alike)} "
            "not run."
        )
    return f"{cell.key}: its process ended with exit status {code}; see above."


def _lost(cell: Cell, results: dict[str, dict[str, Any]], failed: set[str]) -> list[str]:
    """The cells that this one needs and will not get."""
    return [
        key
        for key in cell.needs
        if key in failed or (key in results and results[key]["status"] != "done")
    ]


def _budget(cell: Cell, results: dict[str, dict[str, Any]]) -> str:
    """The budget with a reference looked up: the other cell's parameter bits, in bytes."""
    return (
        f"{results[cell.reference]['parameter_bits'] / 8:.3f} B" if cell.reference else cell.budget
    )


def _left(cells: Sequence[Cell], results: dict[str, dict[str, Any]]) -> str:
    """The time that these cells take one after the other, if cells like them took any yet."""
    took: dict[str, list[float]] = collections.defaultdict(list)
    for result in results.values():
        if result["status"] == "done":
            took[result["config"]["method"]].append(result["seconds"])
            took[""].append(result["seconds"])
    if not took:
        return ""
    seconds = sum(statistics.fmean(took[cell.method] or took[""]) for cell in cells)
    return f", about {duration(seconds)} of work left"


def _lock(cell: Cell, work: pathlib.Path) -> pathlib.Path:
    return work / "locks" / file_name(cell.key)


def _is_free(cell: Cell, work: pathlib.Path) -> bool:
    with locked(_lock(cell, work)) as free:
        return free


def _in_a_process(cell: Cell, *arguments) -> int:
    # A daemon ends with this process, unless that is killed; then it finishes its cell under its
    # lock.
    process = multiprocessing.get_context("spawn").Process(
        target=_run_and_append, args=(cell, *arguments), daemon=True
    )
    process.start()
    process.join()
    return process.exitcode


def _run_and_append(
    cell: Cell,
    budget: str,
    out: pathlib.Path,
    work: pathlib.Path,
    command: str,
    threads: int,
    verbose: int,
) -> None:
    with locked(_lock(cell, work)) as free:
        results = read_results(out)
        if not free or cell.key in results:
            return
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        try:
            known_data = {
                result["config"]["dataset"]: result["data"]
                for result in results.values()
                if "data" in result
            }
            told = run_cell(cell, budget, work, known_data=known_data, verbose=verbose)
        except FOR_PEOPLE as error:
            if os.environ.get("BMPQ_TRACEBACK"):
                raise
            print(f"{cell.key}: {error}\n(BMPQ_TRACEBACK=1 shows where)", file=sys.stderr)
            sys.exit(_NO_DATA if isinstance(error, (DatasetNotFoundError, OtherDataError)) else 1)
        append_result(out, {**told, "threads": threads or None, "command": command})
        forget_backup(cell, work)
