"""The figures of the documents are what `tools/draw_figures.py` draws of the results."""

import pathlib
import xml.etree.ElementTree as ElementTree

import draw_figures
import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("name", draw_figures.FIGURES)
def test_a_figure_is_what_the_script_draws(name):
    drawn = draw_figures.FIGURES[name]()
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert (ROOT / f"docs/images/{name}.svg").read_text() == drawn, (
        "Run python tools/draw_figures.py."
    )
