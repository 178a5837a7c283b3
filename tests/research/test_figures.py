"""The figures of the documents are what `tools/draw_figures.py` draws of the results."""

import importlib.util
import pathlib
import xml.etree.ElementTree as ElementTree

import pytest

ROOT = pathlib.Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("draw_figures", ROOT / "tools/draw_figures.py")
assert _spec is not None
assert _spec.loader is not None
draw_figures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(draw_figures)


@pytest.mark.parametrize("name", draw_figures.FIGURES)
def test_a_figure_is_what_the_script_draws(name):
    drawn = draw_figures.FIGURES[name]()
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert (ROOT / f"docs/images/{name}.svg").read_text() == drawn, (
        "Run python tools/draw_figures.py."
    )
