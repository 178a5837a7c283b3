"""The tables of docs/experiments are what their results files say.

`PYTHONPATH=tools python tests/research/test_experiments_doc.py` writes them anew.
"""

import json
import pathlib
import re

import pytest

from bmpq_research.experiments import front, predictions
from bmpq_research.experiments.grid import read_grid
from bmpq_research.experiments.report import JUDGES, markdown
from bmpq_research.experiments.results import check_results, read_results

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/experiments").glob("*.md"))
TABLES = re.compile(
    r"(<!-- tables of (\w+), (\w+) -->\n\n).*?(?=\n<!-- end of tables -->)", re.DOTALL
)


def tables(name: str, kind: str) -> str:
    """What `tools/compare.py --report` prints of a grid judged on a split or of its front, or, for
    the kind "predicted", `tools/predicted_losses.py`.
    """
    path = ROOT / f"docs/results/{name}.jsonl"
    grid, results = read_grid(ROOT / f"examples/configs/{name}.yaml"), read_results(path)
    check_results(results, grid, path)
    in_order = [results[cell.key] for cell in grid if cell.key in results]
    if kind == "front":
        return front.markdown(in_order)
    if kind != "predicted":
        return markdown(in_order, kind)
    judged = sorted((ROOT / "docs/results/fidelity").glob(f"{grid[0].config.model}_seed*.json"))
    return predictions.markdown(in_order, [json.loads(file.read_text()) for file in judged])


def with_tables(text: str) -> str:
    """The text with every table that stands between its comments made anew."""
    return TABLES.sub(lambda found: found[1] + tables(found[2], found[3]), text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tables_are_those_of_the_results(page):
    text = page.read_text()
    assert with_tables(text) == text, (
        "Run PYTHONPATH=tools python tests/research/test_experiments_doc.py."
    )


def test_every_grid_with_results_has_the_tables_of_its_splits():
    expected = [
        (path.stem, judge)
        for path in (ROOT / "docs/results").glob("*.jsonl")
        if (ROOT / f"examples/configs/{path.stem}.yaml").exists()
        for judge in next(iter(read_results(path).values()))["accuracy"]
    ]
    found = [
        (match[2], match[3])
        for page in PAGES
        for match in TABLES.finditer(page.read_text())
        if match[3] in JUDGES
    ]
    assert sorted(found) == sorted(expected)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
