"""Lines over epochs, as inline SVG."""

import math
import re
from collections.abc import Mapping, Sequence

from bmpq_tf.reporting.figures import figure
from bmpq_tf.reporting.markup import element, escaped
from bmpq_tf.reporting.records import Facts

_WIDTH, _HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 26
# What is no metric, or has a figure of its own.
_LEFT_OUT = re.compile(r"bmpq_|learning_rate$|lr$|epoch$|.*(seconds|time)$")
_MOST = 4
Column = Sequence[float | None]


def training(facts: Facts) -> list[str]:
    """Returns a figure for the loss, for each of the first metrics, and for the average width."""
    groups: dict[str, dict[str, Column]] = {}
    for name, values in facts.logs.items():
        if not _LEFT_OUT.match(name) and any(value is not None for value in values):
            groups.setdefault(name.removeprefix("val_"), {})[name] = values
    made = [
        curves(name, lines, facts.log_epochs)
        for name, lines in sorted(groups.items(), key=lambda group: group[0] != "loss")[:_MOST]
    ]
    bits = facts.logs.get("bmpq_bits", ())
    if any(value is not None for value in bits):
        made.append(curves("bits a weight", {"bits": bits}, facts.log_epochs))
    elif facts.epochs and any(any(kernel.widths) for kernel in facts.kernels):
        bits = [facts.average_bits_at(index) for index in range(len(facts.epochs))]
        made.append(curves("bits a weight", {"bits": bits}, facts.epochs))
    return made


def curves(name: str, lines: Mapping[str, Column], epochs: Sequence[int]) -> str:
    """Returns one chart.

    Args:
        name: what is drawn.
        lines: values for each epoch by their names, at least one of them a number.
        epochs: counted from 1.
    """
    known = [value for values in lines.values() for value in values if value is not None]
    ticks = _ticks(min(known), max(known))
    low, high = min(ticks[0], *known), max(ticks[-1], *known)
    first, last = min(epochs), max(epochs)

    def x(epoch: float) -> float:
        share = 0.5 if first == last else (epoch - first) / (last - first)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        share = (value - low) / ((high - low) or 1)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    drawn = "".join(_grid_line(y(tick), f"{tick:.6g}") for tick in ticks)
    for epoch in dict.fromkeys((first, (first + last) // 2, last)):
        end = "end" if epoch == last != first else "start" if epoch == first != last else "middle"
        drawn += element(
            "text", str(epoch), x=x(epoch), y=_HEIGHT - 8, text_anchor=end, class_="tick"
        )
    for number, values in enumerate(lines.values()):
        drawn += _line(values, epochs, x, y, number)
    told = f"{name} over epochs {first} to {last}: " + "; ".join(
        f"{line} ends at {_last(values):.4g}" for line, values in lines.items()
    )
    svg = element(
        "svg",
        element("title", escaped(told)) + drawn,
        class_="chart",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=told,
    )
    key = "".join(
        element(
            "li",
            element("i", class_=f"swatch l{number % 2}")
            + escaped(f"{line}, {_last(values):.4g} at the end"),
        )
        for number, (line, values) in enumerate(lines.items())
    )
    return figure(svg + element("ul", key, class_="key"), f"{name} over the epochs")


def _last(values: Column) -> float:
    return next((value for value in reversed(values) if value is not None), math.nan)


def _grid_line(y: float, words: str) -> str:
    line = element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid")
    return line + element("text", words, x=_LEFT - 6, y=y + 4, text_anchor="end", class_="tick")


def _line(values: Column, epochs: Sequence[int], x, y, number: int) -> str:
    """A line with a gap where there is no value; a dot where it has no neighbour."""
    drawn, present = "", [value is not None for value in values]
    path, pen = "", False
    for index, (epoch, value) in enumerate(zip(epochs, values, strict=False)):
        if value is None:
            pen = False
            continue
        path += f"{'L' if pen else 'M'}{x(epoch)} {y(value)}"
        pen = True
        if not any(present[max(0, index - 1) : index] + present[index + 1 : index + 2]):
            drawn += element("circle", cx=x(epoch), cy=y(value), r=3, class_=f"dot l{number % 2}")
    return element("path", d=path, class_=f"line l{number % 2}") + drawn


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that lie around all values."""
    if not high > low:
        low, high = low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1)
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    start, end = math.floor(low / step), math.ceil(high / step)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(number * step, digits) for number in range(start, end + 1)]
