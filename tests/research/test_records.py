"""Figures that the guides repeat stand in the record that they come from."""

import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
# The tables of figures outside of the record, by the page and the record that has them.
REPEATED = {
    "guides/files.md": "performance.md",
    "guides/fine_tuning.md": "experiments.md",
}
_FIGURE = re.compile(r"\d[\d,]*\.\d\d+|\d{1,3}(?:,\d{3})+")


@pytest.mark.parametrize(("page", "record"), REPEATED.items())
def test_the_figures_of_a_guides_tables_stand_in_the_record(page, record):
    known = set(_FIGURE.findall((DOCS / record).read_text()))
    rows = [
        line
        for line in (DOCS / page).read_text().splitlines()
        if line.startswith("|") and len(_FIGURE.findall(line)) > 1
    ]
    assert len(rows) >= 3
    unknown = {figure for row in rows for figure in _FIGURE.findall(row)} - known
    assert not unknown


def test_no_other_guide_has_a_table_of_figures():
    having = {
        str(path.relative_to(DOCS))
        for folder in ("guides", "coming_from")
        for path in (DOCS / folder).glob("*.md")
        for line in path.read_text().splitlines()
        if line.startswith("|") and len(_FIGURE.findall(line)) > 1
    }
    assert having == set(REPEATED)
