"""The tables of a report, as data: HTML and text show the same ones."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.reporting.records import Facts, Form, KernelFacts

# Columns of sensitivities, and rows of logs: the first and the last are among them.
_MOST_COLUMNS, _MOST_ROWS = 8, 60
NONE = "\u2013"


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells of text.

    Attributes:
        title: above it.
        columns: their names.
        rows: of as many cells each.
        numbers: the columns that stand to the right.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()


def pairs(title: str, told: Sequence[tuple[str, str]]) -> Table:
    """Returns labels and their values as a table."""
    return Table(title, ("what", "value"), tuple((label, value) for label, value in told))


def width_words(bits: int | None) -> str:
    """Returns a width as a person says it."""
    return NONE if bits is None else "float" if bits == FLOAT_BITS else str(bits)


def sensitivity_words(value: float | None) -> str:
    """Returns a sensitivity in three digits."""
    return NONE if value is None else f"{value:.3g}"


def accuracy_words(value: float | None, metric: str) -> str:
    """Returns an accuracy in per cent, and any other metric in its own unit."""
    if value is None:
        return NONE
    return f"{value:.2%}" if "acc" in metric.lower() and 0 <= value <= 1 else f"{value:.4g}"


def kernels(facts: Facts) -> Table:
    """Every kernel as it is now, and their sum."""
    has_file = bool(facts.file)
    columns = ("kernel", "weights", "bits", *(("stored in",) if has_file else ()), "bytes")
    rows = [
        (
            kernel.name,
            f"{kernel.weights:,}",
            width_words(kernel.bits) + (" p" if kernel.pinned else ""),
            *((width_words(kernel.stored_bits),) if has_file else ()),
            f"{kernel.bytes:,}",
            sensitivity_words(kernel.sensitivity),
            *((kernel.compute or NONE,) if has_file else ()),
        )
        for kernel in facts.kernels
    ]
    last = (
        "total",
        f"{facts.weights:,}",
        f"{facts.average_bits:.2f}",
        *(("",) if has_file else ()),
        f"{sum(kernel.bytes for kernel in facts.kernels):,}",
        "",
        *(("",) if has_file else ()),
    )
    columns = (*columns, "sensitivity", *(("computed",) if has_file else ()))
    numbers = range(1, 6 if has_file else 5)
    return Table("Kernels; p: pinned", columns, (*rows, last), frozenset(numbers))


def widths(facts: Facts) -> Table:
    """Each kernel's width from epoch to epoch, as its changes."""
    rows = tuple((kernel.name, *_changes(kernel, facts.epochs)) for kernel in facts.kernels)
    return Table("Widths over the epochs", ("kernel", "bits", "changes"), rows, frozenset({2}))


def _changes(kernel: KernelFacts, epochs: Sequence[int]) -> tuple[str, str]:
    """A kernel's widths in words, and how often they changed."""
    steps: list[tuple[int, int]] = []
    for epoch, bits in zip(epochs, kernel.widths, strict=True):
        if bits is not None and (not steps or steps[-1][1] != bits):
            steps.append((epoch, bits))
    if not steps:
        return width_words(kernel.bits), "0"
    told = ", ".join(f"{width_words(bits)} from epoch {epoch}" for epoch, bits in steps)
    return told, str(len(steps) - 1)


def sensitivities(facts: Facts) -> Table:
    """Each kernel's sensitivity before some epochs, the first and the last among them."""
    chosen = _some(len(facts.epochs), _MOST_COLUMNS)
    rows = tuple(
        (kernel.name, *(sensitivity_words(kernel.sensitivities[index]) for index in chosen))
        for kernel in facts.kernels
        if any(value is not None for value in kernel.sensitivities)
    )
    columns = ("kernel", *(f"before {facts.epochs[index]}" for index in chosen))
    return Table(
        "Sensitivities: the estimated loss increase at 2 bits, before an epoch",
        columns,
        rows,
        frozenset(range(1, len(columns))),
    )


def logs(facts: Facts) -> Table:
    """What training told of its epochs; of a long one some epochs, the last among them."""
    chosen = _some(len(facts.log_epochs), _MOST_ROWS)
    rows = tuple(
        (
            str(facts.log_epochs[index]),
            *(_number(values[index]) for values in facts.logs.values()),
        )
        for index in chosen
    )
    columns = ("epoch", *facts.logs)
    return Table("Training", columns, rows, frozenset(range(len(columns))))


def average_bits(facts: Facts) -> Table:
    """The average width at some allocations, the first and the last among them."""
    chosen = _some(len(facts.epochs), _MOST_ROWS)
    rows = tuple(
        (str(facts.epochs[index]), f"{facts.average_bits_at(index):.3f}") for index in chosen
    )
    return Table("Average width", ("from epoch", "bits a weight"), rows, frozenset({0, 1}))


def sizes(facts: Facts) -> Table:
    """The forms of the model beside each other."""
    known = [form.accuracy for form in facts.forms if form.accuracy is not None]
    columns = ["form", "weights, bytes", "smaller than float32"]
    has_files = any(form.file_bytes is not None for form in facts.forms)
    columns += ["file, bytes"] * has_files
    columns += [facts.metric, "beside float32"] * bool(known)
    first = facts.forms[0]
    rows = [
        (
            form.name,
            _bytes(form.weight_bytes),
            f"{first.weight_bytes / form.weight_bytes:.2f}x"
            if form.weight_bytes and first.weight_bytes
            else NONE,
            *((_bytes(form.file_bytes),) if has_files else ()),
            *(
                (accuracy_words(form.accuracy, facts.metric), _beside(form, first, facts.metric))
                if known
                else ()
            ),
        )
        for form in facts.forms
    ]
    return Table(
        "Size and accuracy" if known else "Size",
        tuple(columns),
        tuple(rows),
        frozenset(range(1, len(columns))),
    )


def _beside(form: Form, first: Form, metric: str) -> str:
    """How much better or worse a form is than float, in points where the metric is a share."""
    if form is first or form.accuracy is None or first.accuracy is None:
        return NONE
    difference = form.accuracy - first.accuracy
    if accuracy_words(form.accuracy, metric).endswith("%"):
        return f"{100 * difference:+.2f} points"
    return f"{difference:+.4g}"


def parts(facts: Facts) -> Table:
    """Where the bytes lie."""
    total = sum(part.bytes for part in facts.parts)
    rows = [
        (part.name, f"{part.bytes:,}", f"{part.bytes / max(1, total):.1%}") for part in facts.parts
    ]
    rows.append(("total", f"{total:,}", ""))
    return Table("Where the bytes lie", ("what", "bytes", "share"), tuple(rows), frozenset({1, 2}))


def uses(facts: Facts) -> Table:
    """What the widths take of the budget."""
    rows = tuple(
        (
            use.name,
            "not known" if use.used is None else f"{use.used:,.0f}",
            f"{use.allowed:,.0f}",
            NONE if use.used is None else f"{use.share:.1%}",
        )
        for use in facts.uses
    )
    columns = ("limit", "used", "allowed", "share")
    return Table(f"Budget: {facts.budget}", columns, rows, frozenset({1, 2, 3}))


def floats(facts: Facts) -> Table:
    """The kernels that stay float, and why."""
    rows = tuple(
        (kernel.name, f"{kernel.weights:,}", kernel.why_float)
        for kernel in facts.kernels
        if kernel.why_float
    )
    return Table("What stays float", ("kernel", "weights", "why"), rows, frozenset({1}))


def notes(facts: Facts) -> Table:
    """What the export says of single kernels, such as why one is stored wider than its width."""
    rows = tuple(
        (kernel.name, width_words(kernel.bits), width_words(kernel.stored_bits), kernel.note)
        for kernel in facts.kernels
        if kernel.note
    )
    return Table("Notes", ("kernel", "bits", "stored in", "note"), rows, frozenset({1, 2}))


def _bytes(count: int | None) -> str:
    return NONE if count is None else f"{count:,}"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.4g}"


def _some(length: int, most: int) -> list[int]:
    """Positions at equal distances, the first and the last among them."""
    if length <= most:
        return list(range(length))
    step = (length - 1) / (most - 1)
    return [round(number * step) for number in range(most)]


def runs(values: Sequence) -> list[tuple[int, int, Any]]:
    """Returns equal neighbours together: where they start, how many they are, what they are."""
    found, start = [], 0
    for value, group in itertools.groupby(values):
        count = len(list(group))
        found.append((start, count, value))
        start += count
    return found
