"""A report as text: the page's tables, for a terminal, a log or an issue."""

import io
from collections.abc import Sequence

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table as Printed
from rich.text import Text

from bmpq_tf.reporting.markup import clean
from bmpq_tf.reporting.records import Facts
from bmpq_tf.reporting.sections import Section, key_figures
from bmpq_tf.reporting.tables import Table

# Wider than any table: lines are never broken, so that tables can be pasted as Markdown.
_WIDTH = 100_000


def as_text(facts: Facts, parts: Sequence[Section]) -> str:
    """Returns every section with its tables."""
    blocks = [f"# {clean(facts.title)}"]
    blocks.append("\n".join(f"- {value} {what}" for value, what in key_figures(facts)))
    for part in parts:
        blocks.append(f"## {part.title}")
        blocks += [part.intro] if part.intro else []
        for table in (*part.tables, *part.folded):
            blocks += [clean(table.title)] if table.title != part.title else []
            blocks.append(_table(table))
    return "\n\n".join(blocks) + "\n"


def _table(table: Table) -> str:
    printed = Printed(box=MARKDOWN, show_edge=True)
    for number, name in enumerate(table.columns):
        right = number in table.numbers
        printed.add_column(_cell(name), justify="right" if right else "left", no_wrap=True)
    for row in table.rows:
        printed.add_row(*map(_cell, row))
    written = io.StringIO()
    console = Console(
        file=written, width=_WIDTH, color_system=None, force_terminal=False, force_jupyter=False
    )
    console.print(printed)
    lines = [line.rstrip() for line in written.getvalue().splitlines()]
    return "\n".join(line for line in lines if line)


def _cell(text: str) -> Text:
    """Without rich's markup, and with no bar that would end a cell of Markdown."""
    return Text(clean(text).replace("|", "\\|"))
