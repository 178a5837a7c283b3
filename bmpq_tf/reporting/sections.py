"""What a report tells, in the order in which it is read."""

import dataclasses

from bmpq_tf.reporting import curves, figures, tables
from bmpq_tf.reporting.records import Facts
from bmpq_tf.reporting.tables import Table

_NO_LOG = "The model's file keeps no training log: give what fit() returned as history."


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        intro: a sentence or two, or empty.
        figures: as HTML, each shown by one of the tables too.
        tables: that are open.
        folded: that the page opens on a click, and prints.
    """

    title: str
    intro: str = ""
    figures: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()


def sections(facts: Facts) -> list[Section]:
    """Returns all parts."""
    return [
        Section("Size and accuracy", "", (figures.sizes(facts),), (tables.sizes(facts),)),
        _kernels(facts),
        Section(
            "Where the bytes lie",
            "" if facts.file else "There is no file: these are the kernels at their widths.",
            (
                figures.stacked(facts.parts, "The whole file" if facts.file else "All kernels"),
                figures.kernel_bytes(facts),
            ),
            (tables.parts(facts),),
        ),
        _training(facts),
        _parity(facts),
        _budget(facts),
        _floats(facts),
        Section("How it was made", "", (), (tables.pairs("File, versions, command", facts.about),)),
    ]


def key_figures(facts: Facts) -> list[tuple[str, str]]:
    """The figures that one reads first: values and what they are."""
    told = []
    if facts.file_bytes is not None:
        told.append((f"{facts.file_bytes:,}", "bytes of file"))
    told += [
        (f"{facts.compression:.2f}x", "fewer weight bits than float32"),
        (f"{facts.average_bits:.2f}", "bits a weight on average"),
    ]
    best = [form for form in facts.forms[2:] if form.accuracy is not None]
    if best:
        form = best[-1]
        what = f"{facts.metric} of {'the file' if form.name == 'this file' else form.name}"
        told.append((tables.accuracy_words(form.accuracy, facts.metric), what))
    if facts.alike is not None:
        told.append((f"{facts.alike:.2%}", "top-1 equal to Keras"))
    over = any(use.share > 1 for use in facts.uses)
    # Where a limit's use is not known nobody can say that it is met.
    if over or (facts.uses and all(use.used is not None for use in facts.uses)):
        told.append(("over" if over else "within", f"the budget of {facts.budget}"))
    return told


def _kernels(facts: Facts) -> Section:
    folded = [tables.widths(facts)] if facts.epochs else []
    told = tables.sensitivities(facts)
    folded += [told] if told.rows and facts.epochs else []
    return Section(
        "Kernels",
        "A kernel's sensitivity is the estimated increase of the loss if it had 2 bits. Before an "
        "allocation kernels have their widest candidates."
        if facts.epochs
        else "There were no allocations: the widths are as they were set.",
        (figures.allocations(facts),) if facts.epochs else (),
        (tables.kernels(facts),),
        tuple(folded),
    )


def _training(facts: Facts) -> Section:
    made = tuple(curves.training(facts))
    folded = [tables.logs(facts)] if facts.logs and facts.log_epochs else []
    folded += [tables.average_bits(facts)] if facts.epochs else []
    return Section("Training", "" if facts.logs else _NO_LOG, made, (), tuple(folded))


def _parity(facts: Facts) -> Section:
    if not facts.file:
        return Section("Does the file answer as the model?", "The model was not exported.")
    return Section(
        "Does the file answer as the model?",
        "Before the file was written, its answers were compared with Keras's.",
        (),
        (tables.pairs("Parity", facts.parity),),
    )


def _budget(facts: Facts) -> Section:
    if not facts.budget:
        return Section("Budget", "The widths were not allocated under a budget.")
    drawn = figures.budget(facts)
    return Section("Budget", "", (drawn,) if drawn else (), (tables.uses(facts),))


def _floats(facts: Facts) -> Section:
    floats, notes = tables.floats(facts), tables.notes(facts)
    shown = tuple(table for table in (floats, notes) if table.rows)
    intro = "" if floats.rows else "Nothing: every kernel is quantized."
    return Section("What stays float, and why", intro, (), shown)
