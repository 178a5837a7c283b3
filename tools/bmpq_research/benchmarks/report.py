"""Results as Markdown tables and JSON, with the machine that they were measured on."""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any

from bmpq_research.markdown import table
from bmpq_tf.files import write_text


@dataclasses.dataclass(frozen=True)
class Result:
    """One table of a suite.

    Attributes:
        title: what was compared.
        rows: plain data, a dict a row; the columns are the keys.
        notes: what a reader must know: who was skipped, and why.
        ratios: the figures that a quick run judges, by name; above 1 is faster than the base.
    """

    title: str
    rows: list[dict[str, Any]]
    notes: tuple[str, ...] = ()
    ratios: dict[str, float] = dataclasses.field(default_factory=dict)


def machine() -> dict[str, Any]:
    """Describes the machine and the versions: processor, cores, load, Python, TensorFlow, Keras."""
    cpu = platform.processor() or platform.machine()
    information = pathlib.Path("/proc/cpuinfo")
    if information.exists():
        cpu = next(
            (
                line.split(":")[1].strip()
                for line in information.read_text().splitlines()
                if line.startswith("model name")
            ),
            cpu,
        )
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "processor": cpu,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        # Above the number of cores, something else was running at the start.
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in ("tensorflow", "keras", "ai-edge-litert", "mip")},
    }


def measured(
    parts: Iterable[tuple[str, Callable[[], list[Result]]]],
    about: dict[str, Any],
    folder: str | os.PathLike,
) -> list[Result]:
    """Runs one part of a benchmark after the other and keeps what there is so far in `folder`.

    Args:
        parts: names, and what measures.
        about: the machine, as `machine` describes it.
        folder: where `benchmark.md` and `benchmark.json` are written anew after each part, so that
            a run that is stopped leaves them.
    """
    folder, results = pathlib.Path(folder), []
    for name, measure in parts:
        start = time.perf_counter()
        results += measure()
        write_text(folder / "benchmark.md", markdown(results, about) + "\n")
        write_text(folder / "benchmark.json", as_json(results, about) + "\n")
        print(
            f"{name}: {time.perf_counter() - start:.0f} seconds; kept in {folder}",
            file=sys.stderr,
            flush=True,
        )
    return results


def as_json(results: Sequence[Result], about: dict[str, Any]) -> str:
    """Returns the results as JSON."""
    return json.dumps(
        {"machine": about, "results": [dataclasses.asdict(result) for result in results]}, indent=1
    )


def markdown(results: Sequence[Result], about: dict[str, Any]) -> str:
    """Returns the results as a Markdown page."""
    lines = [", ".join(f"{key} {value}" for key, value in about.items())]
    for result in results:
        columns = list(dict.fromkeys(key for row in result.rows for key in row))
        lines += ["", f"### {result.title}", ""]
        if columns:
            cells = ([_told(row.get(column, "")) for column in columns] for row in result.rows)
            lines.append(table(columns, cells))
        lines += ["", *result.notes] if result.notes else []
    return "\n".join(lines)


def _told(value: Any) -> str:
    return (
        f"{value:,.4g}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )
