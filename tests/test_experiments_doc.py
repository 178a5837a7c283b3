"""The tables of docs/experiments.md are what its results files say."""

import pathlib

import pytest

from bmpq_tf.experiments.grid import read_grid
from bmpq_tf.experiments.report import markdown
from bmpq_tf.experiments.results import check_results, read_results

ROOT = pathlib.Path(__file__).parent.parent
DOC = (ROOT / "docs/experiments.md").read_text()
GRIDS = [path.stem for path in sorted((ROOT / "docs/results").glob("*.jsonl")) if (ROOT / f"examples/configs/{path.stem}.yaml").exists()]


@pytest.mark.parametrize("name", GRIDS)
def test_the_tables_are_those_of_the_results(name):
    path = ROOT / f"docs/results/{name}.jsonl"
    grid = read_grid(ROOT / f"examples/configs/{name}.yaml")
    results = read_results(path)
    check_results(results, grid, path)
    told = [results[cell.key] for cell in grid if cell.key in results]
    for judge in ("validation", "test"):
        missing = [line for line in markdown(told, judge).splitlines() if line not in DOC]
        assert not missing, f"docs/experiments.md lacks what --config=examples/configs/{name}.yaml --report --judge={judge} prints."
