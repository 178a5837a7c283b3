"""The page and its text, of facts that are made up: nothing here trains or exports."""

import builtins
import dataclasses
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from report_examples import HOSTILE, Reader, made_up, page, text

from bmpq_tf.reporting import tables
from bmpq_tf.reporting.curves import _ticks
from bmpq_tf.reporting.figures import Axis, Levels
from bmpq_tf.reporting.markup import clean, escaped
from bmpq_tf.reporting.records import Use
from bmpq_tf.reporting.sections import key_figures, sections

pytestmark = pytest.mark.quick

_EVERY = {
    "three": made_up(),
    "one": made_up(["only/kernel"], epochs=2),
    "three hundred": made_up([f"block{n}/conv/kernel" for n in range(300)], epochs=100),
    "hostile": made_up(HOSTILE),
    "no history": made_up(history=False),
    "no accuracy": made_up(accuracy=False),
    "no file": made_up(file=False, accuracy=False),
    "no allocation": made_up(epochs=1, history=False),
    "nothing": made_up(epochs=1, history=False, file=False, accuracy=False),
}
every = pytest.mark.parametrize("facts", _EVERY.values(), ids=_EVERY)


@every
def test_a_page_is_well_formed_and_names_every_kernel_wherever_it_lists_them(facts):
    read = Reader(page(facts))
    for kernel in facts.kernels:
        # The kernels' table, their bytes, and the strips and folded tables where there are any.
        least = 2 + 2 * bool(facts.epochs)
        assert read.words.count(clean(kernel.name)) >= least, kernel.name
    strips = [attributes for tag, attributes in read.tags if attributes.get("class") == "cells"]
    assert len(strips) == 2 * len(facts.kernels) * bool(facts.epochs)


@every
def test_a_page_runs_nothing_and_loads_nothing(facts):
    content = page(facts)
    read = Reader(content)
    allowed = {
        "html",
        "head",
        "meta",
        "link",
        "title",
        "style",
        "body",
        "main",
        "header",
        "section",
    }
    allowed |= {"h1", "h2", "p", "ul", "li", "b", "i", "bdi", "span", "div", "pre", "figure"}
    allowed |= {"figcaption", "details", "summary", "table", "caption", "thead", "tbody", "tr"}
    allowed |= {"th", "td", "svg", "path", "line", "circle", "text", "wbr"}
    assert {tag for tag, _ in read.tags} <= allowed
    for tag, attributes in read.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert not {"src", "srcset", "style", "action"} & set(attributes), (tag, attributes)
        assert attributes.get("href", "data:,") == "data:,"
    (style,) = re.findall("<style>(.*?)</style>", content, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in content


@every
def test_every_figure_is_drawn_and_has_a_table_beside_it(facts):
    parts = sections(facts)
    assert any(part.figures for part in parts)
    for part in parts:
        assert not part.figures or (*part.tables, *part.folded), part.title
        for drawing in part.figures:
            read = Reader(drawing)
            assert read.count("svg")
            assert read.count("path")
            for tag, attributes in read.tags:
                if tag == "path":
                    assert re.fullmatch(r"[-+MLhvz0-9. e]+", attributes["d"]), attributes["d"]


@every
def test_the_text_is_markdown_with_all_cells_of_all_tables(facts):
    told = text(facts)
    read = Reader(page(facts))
    for part in sections(facts):
        for table in (*part.tables, *part.folded):
            for row in table.rows:
                cells = [clean(cell).replace("|", "\\|") for cell in row]
                line = r"\| *" + r" *\| *".join(map(re.escape, cells)) + r" *\|"
                assert re.search(line, told), row
                assert set(map(clean, row)) <= set(read.cells)
            assert all(len(row) == len(table.columns) for row in table.rows)
    assert "All tables as text" in read.words


def test_names_of_layers_are_shown_and_never_understood():
    for made in (page(made_up(HOSTILE)), page(made_up([*HOSTILE, "\ud800", "a\x00b\nc\u202ed"]))):
        read = Reader(made)
        assert not read.count("script")
        assert not read.count("img")
        assert set(map(clean, HOSTILE)) <= set(read.words)
        made.encode()
    assert "a\ufffdb\ufffdc\ufffdd" in made
    assert "\ufffd" in made
    told = text(made_up(HOSTILE))
    assert "[bold]c[/bold]" in told
    assert "a\\|b" in told


@given(st.text())
def test_escaped_text_is_read_back_as_it_was_cleaned(name):
    read = Reader(f'<p title="{escaped(name)}">{escaped(name)}</p>')
    assert "".join(read.words) == clean(name)
    assert read.tags == [("p", {"title": clean(name)})]
    assert clean(clean(name)) == clean(name)
    clean(name).encode()


def test_the_budget_is_told_as_met_only_where_every_limit_is_known():
    def told(*uses: Use) -> list[str]:
        facts = dataclasses.replace(made_up(), uses=uses)
        return [value for value, what in key_figures(facts) if "budget" in what]

    met, missed, open_ = Use("a", 5, 5), Use("b", 6, 5), Use("c", None, 5)
    assert told(met) == ["within"]
    assert told(met, missed) == told(missed, open_) == ["over"]
    assert told(met, open_) == told() == []


def test_a_large_page_stays_small():
    facts = _EVERY["three hundred"]
    assert len(page(facts).encode()) < 1_500_000


def test_widths_are_told_as_their_changes_and_sensitivities_at_some_epochs():
    facts = made_up(["a/kernel"], epochs=4)
    assert facts.kernels[0].widths == (8, 2, 2)
    (row,) = tables.widths(facts).rows
    assert row == ("a/kernel", "8 from epoch 2, 2 from epoch 3", "1")
    long = made_up(["a/kernel"], epochs=100)
    columns = tables.sensitivities(long).columns
    assert (columns[1], columns[-1], len(columns)) == ("before 2", "before 100", 9)


def test_strips_cover_the_epochs_in_which_widths_held_and_sensitivities_were_measured():
    axis = Axis(made_up(epochs=4))
    assert axis.end == 4
    assert axis.held == [(1, 2), (2, 3), (3, 4)]
    assert axis.measured == [(0, 1), (1, 2), (2, 3)]
    # Settling epochs come after the last allocation, and only the log knows of them.
    facts = made_up(epochs=4)
    settled = Axis(dataclasses.replace(facts, log_epochs=tuple(range(1, 10))))
    assert (settled.held[-1], settled.measured[-1], settled.end) == ((3, 9), (2, 3), 9)
    # A second fit counts from the first epoch again.
    again = Axis(dataclasses.replace(facts, epochs=(2, 3, 2)))
    assert again.held == [(0, 1), (1, 2), (2, 3)]
    assert again.measured == again.held
    assert again.words == "allocations 1 to 3"


def test_colours_of_sensitivities_go_by_their_logarithm():
    facts = made_up(epochs=30)
    levels = Levels(facts.kernels)
    assert (levels.of(levels.low), levels.of(levels.high)) == ("s0", "s7")
    assert levels.of((levels.low * levels.high) ** 0.5) in ("s3", "s4")
    assert levels.of(None) is levels.of(0.0) is levels.of(float("nan")) is None
    assert Levels(made_up(["a/kernel"], epochs=2).kernels).of(0.5) == "s7"
    far = [dataclasses.replace(facts.kernels[0], sensitivities=(1e-300, 1e300))]
    assert Levels(far).of(1.0) in ("s3", "s4")


@given(st.floats(-1e30, 1e30, allow_subnormal=False), st.floats(0, 1e30, allow_subnormal=False))
def test_ticks_lie_around_the_values_and_are_few(low, more):
    # Closer values than this are as good as equal, and drawn as a line.
    assume(more == 0 or more > 1e-9 * abs(low))
    ticks = _ticks(low, low + more)
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))
    assert ticks[0] <= low + 1e-6 * abs(low)
    assert ticks[-1] >= low + more - 1e-6 * abs(low + more)


def test_a_notebook_does_not_swallow_the_tables(monkeypatch):
    expected = text(_EVERY["three"])
    assert expected.count("|") > 100
    shell = type("ZMQInteractiveShell", (), {})
    monkeypatch.setattr(builtins, "get_ipython", shell, raising=False)
    assert text(_EVERY["three"]) == expected
