"""The table of docs/runtime_matrix.md: made of what was seen, read from the page, and compared."""

import itertools
import re
from collections.abc import Sequence

from bmpq_research.runtime_probe import probe

COLUMNS = (
    "operator",
    "mode",
    "scales",
    "int2",
    "int4",
    "int8",
    "int2, no XNNPACK",
    "int4, no XNNPACK",
    "int8, no XNNPACK",
    "tf.lite",
    "arm64",
)
_KEYS = 3


def rows(found: Sequence[probe.Seen]) -> list[tuple[str, ...]]:
    """Returns the table's cells, a row for each operator, mode and granularity.

    The last column is left out where no ARM processor was asked.
    """
    table = {}
    for seen in found:
        table.setdefault((seen.operator, seen.mode, seen.granularity), {})[
            seen.bits, seen.runtime
        ] = seen
    others = [probe.RUNTIMES[2:]]
    if any(seen.runtime in probe.ARM_RUNTIMES for seen in found):
        others.append(probe.ARM_RUNTIMES)
    return [
        (
            *key,
            *(
                _text(cells[bits, runtime])
                for runtime in probe.RUNTIMES[:2]
                for bits in probe.WIDTHS
            ),
            *(_differences(cells, runtimes) for runtimes in others),
        )
        for key, cells in table.items()
    ]


def _differences(cells: dict, theirs: Sequence[str]) -> str:
    """What other runtimes, with XNNPACK and without, do otherwise than LiteRT here."""
    return (
        "; ".join(
            f"int{bits}{', no XNNPACK' if other.endswith('without XNNPACK') else ''}: "
            f"{cells[bits, other].outcome}"
            for own, other in zip(probe.RUNTIMES[:2], theirs, strict=True)
            for bits in probe.WIDTHS
            if cells[bits, own].outcome != cells[bits, other].outcome
        )
        or "same"
    )


def _text(seen: probe.Seen) -> str:
    outcome = "-" if seen.outcome == "refused" else seen.outcome
    return outcome if seen.speed is None else f"{outcome} {seen.speed:.2f}"


def documented(page: str, columns: Sequence[str] = COLUMNS) -> list[tuple[str, ...]]:
    """Returns the rows of a table, by default the matrix's, as a page tells them, without speeds.

    Raises:
        ValueError: the page has no such table.
    """
    lines = page.splitlines()
    header = f"| {' | '.join(columns)} |"
    if header not in lines:
        raise ValueError(f"The page has no table with this header: {header}")
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[lines.index(header) + 2 :])
    return [
        tuple(re.sub(r" \d+\.\d+$", "", cell.strip()) for cell in line.strip("|").split("|"))
        for line in table
    ]


def departures(told: Sequence[tuple[str, ...]], found: Sequence[tuple[str, ...]]) -> list[str]:
    """Returns the cells that are not what a page tells, in words.

    What a kernel that is wrong leaves depends on memory, and may be right by chance; never the
    other way round. Columns that were not probed are not compared.
    """
    departed = []
    if [row[:_KEYS] for row in told] != [row[:_KEYS] for row in found]:
        departed.append(f"The rows are others: {len(told)} are told, {len(found)} were found.")
    by_key = {row[:_KEYS]: row for row in told}
    for row in found:
        for column, then, now in zip(COLUMNS, by_key.get(row[:_KEYS], ()), row, strict=False):
            now = re.sub(r" \d+\.\d+$", "", now)
            if not _agrees(then, now):
                departed.append(f"{', '.join(row[:_KEYS])}, {column}: told {then}, found {now}")
    return departed


def _agrees(then: str, now: str) -> bool:
    parts, found = then.split("; "), now.split("; ")
    return len(parts) == len(found) and all(
        new == old or ("wrong" in old and new == old.replace("wrong", "right"))
        for old, new in zip(parts, found, strict=True)
    )
