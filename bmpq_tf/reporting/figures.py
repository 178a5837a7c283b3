"""The figures of a report: strips and bars as inline SVG, with their words in HTML beside them.

Words stay outside of the SVG, so that they keep their size on a phone, wrap, and never overlap.
Colours are classes of the style sheet, so that they follow light, dark and print.
"""

import itertools
import math
from collections.abc import Sequence

from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.reporting import markup
from bmpq_tf.reporting.markup import element, escaped
from bmpq_tf.reporting.records import Facts, KernelFacts, Part
from bmpq_tf.reporting.tables import (
    accuracy_words,
    runs,
    sensitivity_words,
    width_words,
)

LEVELS = 8
# Rows from which on a figure or a table scrolls by itself.
TALL = 30
# Finer strips would cost bytes that no screen shows.
_MOST_CELLS = 120


def figure(content: str, caption: str, legend: str = "", *, tall: bool = False) -> str:
    """Returns a figure; a tall one scrolls on a screen, by keys too, and is whole on paper."""
    told = element("figcaption", escaped(caption)) + legend
    if not tall:
        return element("figure", told + content)
    box = element("div", content, class_="tall", tabindex=0, role="region", aria_label=caption)
    return element("figure", told + box)


def _svg(content: str, width: float, label: str, look: str) -> str:
    """A drawing that is stretched to the place that it gets."""
    return element(
        "svg",
        element("title", escaped(label)) + content,
        class_=look,
        viewBox=f"0 0 {width:g} 1",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def _cells(cells: Sequence[tuple[float, float, str]]) -> str:
    """Cells from x on, so many wide, of a look: one path for each look."""
    paths: dict[str, str] = {}
    for start, width, look in cells:
        paths[look] = paths.get(look, "") + f"M{start:g} 0h{width:g}v1h-{width:g}z"
    return "".join(element("path", class_=look, d=shape) for look, shape in paths.items())


def _key(entries: Sequence[tuple[str, str]]) -> str:
    """A legend: looks and their words."""
    return element(
        "ul",
        "".join(
            element("li", element("i", class_=f"swatch {look}") + escaped(words))
            for look, words in entries
        ),
        class_="key",
    )


class Axis:
    """The epochs of a run, as the strips show them.

    An allocation's widths hold until the next one, the last ones until the end; what it was made
    by was measured since the one before.

    Args:
        facts: of the run.
    """

    def __init__(self, facts: Facts):
        epochs = facts.epochs
        # After two calls of fit epochs may count anew; then the allocations themselves are counted.
        self.in_order = all(a < b for a, b in itertools.pairwise(epochs)) and min(epochs) >= 1
        starts = [epoch - 1 for epoch in epochs] if self.in_order else list(range(len(epochs)))
        # Logs of another run, or of its first part, say nothing of the end.
        last = max(facts.log_epochs, default=0) if self.in_order else 0
        self.end = max(starts[-1] + 1, last)
        self.held = list(zip(starts, [*starts[1:], self.end], strict=True))
        self.measured = (
            list(zip([0, *starts], starts, strict=False)) if self.in_order and starts[0] else []
        ) or [(start, start + 1) for start in starts]

    @property
    def words(self) -> str:
        """What lies at its ends."""
        return f"epochs 1 to {self.end}" if self.in_order else f"allocations 1 to {self.end}"


class Levels:
    """Colours of sensitivities, by their logarithm.

    Args:
        kernels: whose sensitivities set the ends.
    """

    def __init__(self, kernels: Sequence[KernelFacts]):
        known = [value for kernel in kernels for value in kernel.sensitivities]
        positive = [value for value in known if value and 0 < value < math.inf]
        self.low, self.high = min(positive, default=0.0), max(positive, default=0.0)

    def of(self, value: float | None) -> str | None:
        """Returns the class of a sensitivity; `None` for one that is not known or zero."""
        if not value or not 0 < value < math.inf:
            return None
        if self.low == self.high:
            return f"s{LEVELS - 1}"
        low, high = math.log(self.low), math.log(self.high)
        share = (math.log(value) - low) / (high - low)
        # A mean of several may lie below all that are positive.
        return f"s{min(LEVELS - 1, max(0, int(share * LEVELS)))}"


def allocations(facts: Facts) -> str:
    """Widths and sensitivities of every kernel over the epochs; empty without allocations."""
    if not facts.epochs:
        return ""
    axis, levels = Axis(facts), Levels(facts.kernels)
    told = any(levels.of(value) for kernel in facts.kernels for value in kernel.sensitivities)
    head = _row("head", "kernel", escaped(f"width, {axis.words}"), escaped("sensitivity"), "bits")
    rows = "".join(
        _row(
            "row",
            kernel.name,
            _width_strip(kernel, axis),
            _sensitivity_strip(kernel, axis, levels),
            width_words(kernel.bits),
        )
        for kernel in facts.kernels
    )
    found = {bits for kernel in facts.kernels for bits in (*kernel.widths, kernel.bits)}
    key = [(f"w{bits}", _bits_words(bits)) for bits in sorted(bit for bit in found if bit)]
    colours = [("none", "not allocated or not measured")]
    legend = _key([*key, *colours])
    if told:
        legend += _scale(levels)
    grid = element("div", head + rows, class_="strips")
    caption = "Each kernel's width and sensitivity over the epochs"
    return figure(grid, caption, legend, tall=len(facts.kernels) > TALL)


def _row(look: str, name: str, widths: str, sensitivities: str, bits: str) -> str:
    cells = (
        element("span", markup.name(name), class_="name"),
        element("span", widths, class_="strip"),
        element("span", sensitivities, class_="strip"),
        element("span", escaped(bits), class_="value"),
    )
    return element("div", "".join(cells), class_=look)


def _width_strip(kernel: KernelFacts, axis: Axis) -> str:
    widths = kernel.widths if any(kernel.widths) else (kernel.bits,) * len(axis.held)
    cells = [
        (axis.held[start][0], axis.held[start + count - 1][1] - axis.held[start][0], f"w{bits}")
        for start, count, bits in runs(widths)
        if bits is not None
    ]
    told = " to ".join(dict.fromkeys(width_words(bits) for _, _, bits in runs(widths)))
    return _svg(_cells(cells), axis.end, f"{kernel.name}: widths {told}", "cells")


def _sensitivity_strip(kernel: KernelFacts, axis: Axis, levels: Levels) -> str:
    step = math.ceil(len(axis.measured) / _MOST_CELLS)
    looks, spans = [], []
    for start in range(0, len(axis.measured), step):
        group = kernel.sensitivities[start : start + step]
        known = [value for value in group if value is not None and math.isfinite(value)]
        looks.append(levels.of(sum(known) / len(known)) if known else None)
        spans.append((axis.measured[start][0], axis.measured[start : start + step][-1][1]))
    cells = [
        (spans[start][0], spans[start + count - 1][1] - spans[start][0], look)
        for start, count, look in runs(looks)
        if isinstance(look, str)
    ]
    told = f"{kernel.name}: sensitivity {sensitivity_words(kernel.sensitivity)} at the end"
    return _svg(_cells(cells), axis.end, told, "cells")


def _scale(levels: Levels) -> str:
    """The legend of sensitivities: their ends, and the colours between."""
    if levels.low == levels.high:
        return _key([(f"s{LEVELS - 1}", f"sensitivity {levels.low:.2g}")])
    swatches = "".join(element("i", class_=f"swatch s{level}") for level in range(LEVELS))
    ends = escaped(f"{levels.low:.2g}"), escaped(f"{levels.high:.2g}")
    told = f"sensitivity {ends[0]} {swatches} {ends[1]}"
    return element("p", f"{told} (logarithmic)", class_="key scale")


def _bits_words(bits: int) -> str:
    return "float" if bits == FLOAT_BITS else f"{bits} bits"


def stacked(parts: Sequence[Part], caption: str) -> str:
    """One bar of all parts, with a legend that names and counts them."""
    total = sum(part.bytes for part in parts)
    cells, start = [], 0.0
    for part in parts:
        width = 100 * part.bytes / max(1, total)
        cells.append((round(start, 3), round(width, 3), part.look))
        start += width
    told = "; ".join(f"{part.name}: {part.bytes:,} bytes" for part in parts)
    shares = [
        (part.look, f"{part.name}: {part.bytes:,} bytes, {part.bytes / max(1, total):.1%}")
        for part in parts
    ]
    return figure(_svg(_cells(cells), 100, told, "stack") + _key(shares), caption)


def bars(rows: Sequence[tuple[str, float, str, str]], caption: str, *, tall: bool = False) -> str:
    """Bars beside each other.

    Args:
        rows: label, length as a share of the longest, the words at its end, and its look.
        caption: of the figure.
        tall: whether it scrolls.
    """
    made = []
    for label, share, words, look in rows:
        length = round(100 * min(1.0, max(0.0, share)), 2)
        bar = _svg(_cells([(0, length, look)]), 100, f"{label}: {words}", "bar")
        cells = (
            element("span", markup.name(label), class_="name"),
            element("span", bar, class_="strip"),
            element("span", escaped(words), class_="value"),
        )
        made.append(element("div", "".join(cells), class_="row"))
    return figure(element("div", "".join(made), class_="bars"), caption, tall=tall)


def sizes(facts: Facts) -> str:
    """The forms of the model: by their files where all are known, by their weights otherwise."""
    files = [form.file_bytes for form in facts.forms]
    by_file = None not in files
    counted = files if by_file else [form.weight_bytes for form in facts.forms]
    most = max([count for count in counted if count], default=1)
    rows = []
    for form, count in zip(facts.forms, counted, strict=True):
        if count is None:
            continue
        words = f"{count:,} bytes"
        if form.accuracy is not None:
            words += f", {accuracy_words(form.accuracy, facts.metric)}"
        rows.append((form.name, count / most, words, "ours" if form.is_ours else "theirs"))
    what = "The file" if by_file else "The kernels' weights"
    known = any(form.accuracy is not None for form in facts.forms)
    return bars(rows, f"{what}, in bytes" + f", and {facts.metric}" * known)


def kernel_bytes(facts: Facts) -> str:
    """What each kernel takes."""
    most = max(kernel.bytes for kernel in facts.kernels)
    rows = [
        (
            kernel.name,
            kernel.bytes / max(1, most),
            f"{kernel.bytes:,} bytes, {_bits_words(kernel.held_bits)}",
            f"w{kernel.held_bits}",
        )
        for kernel in facts.kernels
    ]
    return bars(rows, "Bytes of each kernel", tall=len(rows) > TALL)


def budget(facts: Facts) -> str:
    """How much of each limit is used; empty where there is none."""
    rows = [
        (
            use.name,
            use.share,
            f"{use.used:,.0f} of {use.allowed:,.0f}",
            "over" if use.share > 1 else "ours",
        )
        for use in facts.uses
        if use.used is not None
    ]
    return bars(rows, f"What is used of the budget of {facts.budget}") if rows else ""
