"""A report as one HTML page that asks nothing of any network and runs no script."""

from collections.abc import Sequence

from bmpq_tf.reporting.figures import TALL
from bmpq_tf.reporting.markup import element, escaped, name
from bmpq_tf.reporting.records import Facts
from bmpq_tf.reporting.sections import Section, key_figures
from bmpq_tf.reporting.style import STYLE
from bmpq_tf.reporting.tables import Table

# Browsers then load nothing, whatever the page says, and run nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def as_html(facts: Facts, parts: Sequence[Section], text: str) -> str:
    """Returns the page.

    Args:
        facts: for its head.
        parts: its sections.
        text: the same as text, which stands at the end, to be copied.
    """
    body = _header(facts) + "".join(_section(part) for part in parts)
    whole = element("pre", escaped_lines(text), tabindex=0)
    body += element("section", _folded("All tables as text", whole), class_="text")
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="color-scheme" content="light dark">',
            # Or a browser asks the server for one.
            '<link rel="icon" href="data:,">',
            element("title", escaped(f"{facts.title}: bmpq_tf report")),
            f"<style>{STYLE}</style>",
            "</head>",
            element("body", element("main", body)),
            "</html>",
            "",
        )
    )


def escaped_lines(text: str) -> str:
    """Returns text of several lines, as `escaped` returns one."""
    return "\n".join(map(escaped, text.split("\n")))


def _header(facts: Facts) -> str:
    title = name(facts.title)
    file = element("p", name(facts.file), class_="file") if facts.file else ""
    tiles = "".join(
        element("li", element("b", escaped(value)) + element("span", escaped(what)))
        for value, what in key_figures(facts)
    )
    kind = element("p", "bmpq_tf: a trained model and its file", class_="kind")
    return element("header", kind + element("h1", title) + file) + element(
        "ul", tiles, class_="tiles"
    )


def _section(part: Section) -> str:
    content = element("h2", escaped(part.title))
    if part.intro:
        content += element("p", escaped(part.intro), class_="intro")
    charts = "".join(part.figures)
    content += element("div", charts, class_="figures") if charts else ""
    content += "".join(_table(table, table.title != part.title) for table in part.tables)
    content += "".join(_folded(table.title, _table(table, False)) for table in part.folded)
    return element("section", content)


def _folded(title: str, content: str) -> str:
    return element("details", element("summary", escaped(title)) + content)


def _table(table: Table, named: bool = True) -> str:
    caption = element("caption", escaped(table.title)) if named else ""
    head = "".join(
        element("th", escaped(words), scope="col", class_="number" if n in table.numbers else None)
        for n, words in enumerate(table.columns)
    )
    body = "".join(element("tr", _cells(table, row)) for row in table.rows)
    whole = caption + element("thead", element("tr", head)) + element("tbody", body)
    # A wide or long one scrolls by itself, by keys too, and the page fits the screen.
    return element(
        "div",
        element("table", whole, class_="wide" if len(table.columns) > 3 else None),
        class_="scroll tall" if len(table.rows) > TALL else "scroll",
        tabindex=0,
        role="region",
        aria_label=table.title,
    )


def _cells(table: Table, row: Sequence[str]) -> str:
    number = "number" if 0 in table.numbers else None
    first = element("th", name(row[0]), scope="row", class_=number)
    rest = [
        element("td", _value(cell), class_="number" if place in table.numbers else None)
        for place, cell in enumerate(row[1:], start=1)
    ]
    return first + "".join(rest)


def _value(cell: str) -> str:
    """A cell's words; those of a command line are not broken behind their hyphens."""
    if " --" not in cell:
        return escaped(cell)
    return " ".join(element("span", escaped(word), class_="word") for word in cell.split(" "))
