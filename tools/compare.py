"""Trains a grid of methods, budgets and seeds from one config file.

A finished cell is one line of results and is not run again.

Examples:
  python tools/compare.py --config=examples/configs/smoke.yaml
  python tools/compare.py --config=examples/configs/resnet20_12x.yaml \\
      --data_dir=~/tensorflow_datasets --out=runs/resnet20_12x.jsonl
  python tools/compare.py --config=... --out=... --cells='bmpq/12x/seed[01]$'
  python tools/compare.py --config=... --out=runs/resnet20_12x.jsonl --report=runs/resnet20_12x

Several of these commands may run beside each other on the same file: each takes cells that nobody
works on, or its --shard of them. A command that was killed and is started again goes on at the last
epoch of the cell that it was in.
"""

import dataclasses
import pathlib
import re
import signal
import sys

from absl import flags

from bmpq_research.program import check_installed
from bmpq_research.program import run as run_program

check_installed("yaml")

# isort: split
from bmpq_research.datasets import DATA_DIR_HELP, DOWNLOAD_HELP
from bmpq_research.experiments import front
from bmpq_research.experiments.compare import compare
from bmpq_research.experiments.grid import Cell, read_grid
from bmpq_research.experiments.plots import plot_results
from bmpq_research.experiments.report import JUDGES, markdown, rows
from bmpq_research.experiments.results import check_results, read_results
from bmpq_tf.cli.program import command
from bmpq_tf.files import write_text

flags.DEFINE_string(
    "config",
    None,
    "The YAML file of the grid; see tools/bmpq_research/experiments/grid.py.",
)
flags.DEFINE_string(
    "out",
    None,
    "The JSON-lines file that results are appended to; by default runs/ and the config's name.",
)
flags.DEFINE_string("data_dir", None, DATA_DIR_HELP)
flags.DEFINE_bool("download", False, DOWNLOAD_HELP)
flags.DEFINE_string("cells", "", "Run only the cells whose name matches this regular expression.")
flags.DEFINE_string("shard", "", "i/n: run only every n-th cell, from the i-th, counted from 0.")
flags.DEFINE_integer("threads", 0, "Threads of each cell; TensorFlow's choice if 0.", lower_bound=0)
flags.DEFINE_bool("list", False, "Print the names of the cells, and run nothing.")
flags.DEFINE_string(
    "report",
    None,
    "Run nothing; print a table of the results so far, and write it and its pictures to this "
    "folder.",
)
flags.DEFINE_enum(
    "judge",
    "validation",
    JUDGES,
    "The split that --report tells; the test split is for the final table only.",
)
flags.DEFINE_integer(
    "verbose", 2, "0: cells only; 1: also a progress bar; 2: also a line an epoch."
)


def main() -> None:
    """Runs the cells that have no result yet."""
    given = flags.FLAGS
    if not given.config:
        raise ValueError("Give --config, such as examples/configs/smoke.yaml. See --help.")
    grid = read_grid(given.config)
    chosen = _chosen(grid, given.cells, given.shard)
    if given.list:
        print("\n".join(cell.key for cell in chosen))
        return
    out = given.out or f"runs/{pathlib.Path(given.config).stem}.jsonl"
    if given.report:
        _report(chosen, grid, out, given.report, given.judge)
        return
    print(f"Results go to {out}.")
    # So that a cell's process ends with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = given.data_dir
    grid, chosen = (
        [_with_data(cell, folder, given.download) for cell in part] for part in (grid, chosen)
    )
    unfinished = compare(
        chosen, out, grid=grid, command=command(), threads=given.threads, verbose=given.verbose
    )
    if unfinished:
        raise RuntimeError(
            f"{len(unfinished)} of {len(chosen)} cells have no result: {', '.join(unfinished)}."
        )


def _report(chosen: list[Cell], grid: list[Cell], out: str, folder: str, judge: str) -> None:
    results = read_results(out)
    check_results(results, grid, out)
    told = [results[cell.key] for cell in chosen if cell.key in results]
    if not told:
        raise ValueError(
            f"There are no results to report. Received: --out={out}. Run the grid first."
        )
    table = markdown(told, judge)
    has_float = any(row.part == "float32" and row.by_seed for row in rows(told))
    if judge == front.JUDGE and has_float and any("device_files" in result for result in told):
        table += f"\n{front.markdown(told)}"
    write_text(pathlib.Path(folder) / f"{judge}.md", table)
    print(table)
    print(
        f"{len(told)} of {len(chosen)} cells. Pictures: "
        f"{', '.join(map(str, plot_results(told, folder, judge)))}"
    )


def _chosen(grid: list[Cell], pattern: str, shard: str) -> list[Cell]:
    try:
        cells = [cell for cell in grid if re.search(pattern, cell.key)]
    except re.error as error:
        raise ValueError(
            f"Not a regular expression: {error}. Received: --cells={pattern}."
        ) from None
    if shard:
        part = re.fullmatch(r"(\d+)/(\d+)", shard)
        if not part or int(part[1]) >= int(part[2]):
            raise ValueError(f"A shard is i/n, with i from 0 to n-1. Received: --shard={shard}.")
        cells = cells[int(part[1]) :: int(part[2])]
    if not cells:
        raise ValueError(
            f"No cell is chosen. Received: --cells={pattern} --shard={shard}. --list prints their "
            "names."
        )
    return cells


def _with_data(cell: Cell, folder: str | None, download: bool) -> Cell:
    return dataclasses.replace(
        cell, config=dataclasses.replace(cell.config, data_dir=folder, download=download)
    )


if __name__ == "__main__":
    run_program(main)
