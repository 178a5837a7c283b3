"""Figures that README and the guides repeat stand in the record that they come from."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
RECORDS = [
    *sorted((DOCS / "experiments").glob("*.md")),
    *(DOCS / f"{name}.md" for name in ("performance", "microcontrollers", "npu", "arm")),
    *(DOCS / f"{name}.md" for name in ("runtime_matrix", "robustness")),
]
PAGES = [
    ROOT / "README.md",
    *(DOCS / f"{name}.md" for name in ("index", "faq", "results", "how_it_works")),
    *sorted((DOCS / "guides").glob("*.md")),
]
# What was measured is told with two decimals, or in thousands.
_FIGURE = re.compile(r"(?<![\w.:])\d[\d,]*\.\d\d+(?![\w.])|(?<![\w.])\d{1,3}(?:,\d{3})+")
# Code, addresses, versions, and the tables that test_results_page.py makes.
_OTHER = re.compile(
    r"```.*?```|<!-- table of.*?<!-- end of table -->|\]\([^)]*\)|`[^`]*`"
    r"|\b(?:TensorFlow|Keras|Python|pod that we know of is) [\d.]*\d",
    re.DOTALL,
)


@pytest.fixture(scope="module")
def recorded() -> set[str]:
    return {figure for record in RECORDS for figure in _FIGURE.findall(record.read_text())}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_figure_of_a_page_stands_in_the_record(page, recorded):
    assert not set(_FIGURE.findall(_OTHER.sub("", page.read_text()))) - recorded


def test_figures_are_found_where_there_are_some(recorded):
    of_files = set(_FIGURE.findall((DOCS / "guides/files.md").read_text()))
    assert {"1,103,316", "80.54"} <= of_files & recorded
