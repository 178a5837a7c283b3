"""An export's report as a person reads it: a short table, and what the file is worth."""

import io
import math
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.wording import listed

if TYPE_CHECKING:
    from bmpq_tf.export.report import ExportReport, LayerReport

# Of a model with more kernels, the largest are shown, and the others as one row.
_MOST_ROWS = 24
_WIDEST = 100


def as_text(report: "ExportReport") -> str:
    """Returns the report in lines no wider than the terminal."""
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    text = io.StringIO()
    Console(file=text, width=width, color_system=None, force_jupyter=False).print(_table(report))
    return f"{report.path}\n{text.getvalue()}" + "\n".join(_below(report))


def _table(report: "ExportReport") -> Table:
    table = Table()
    table.add_column("kernel", overflow="fold")
    for name in ("weights", "bits", "stored in", "sensitivity", "bytes"):
        table.add_column(name, justify="right")
    shown, left = _chosen(report.layers)
    for layer in shown:
        told = "" if layer.sensitivity is None else f"{layer.sensitivity:.3g}"
        mark = " p" if layer.pinned else ""
        stored = "float" if layer.stored_bits == FLOAT_BITS else str(layer.stored_bits)
        size = f"{_bytes(layer):,}"
        table.add_row(layer.name, f"{layer.weights:,}", f"{layer.bits}{mark}", stored, told, size)
    if left:
        table.add_row(f"{len(left)} smaller kernels", *_summed(left))
    table.add_section()
    table.add_row("total", *_summed(report.layers))
    return table


def _chosen(
    layers: Sequence["LayerReport"],
) -> tuple[Sequence["LayerReport"], Sequence["LayerReport"]]:
    """The kernels that get a row each, in the model's order, and the others."""
    if len(layers) <= _MOST_ROWS:
        return layers, ()
    largest = sorted(layers, key=_bytes, reverse=True)[: _MOST_ROWS - 1]
    names = {layer.name for layer in largest}
    return (
        [layer for layer in layers if layer.name in names],
        [layer for layer in layers if layer.name not in names],
    )


def _summed(layers: Sequence["LayerReport"]) -> tuple[str, ...]:
    weights = sum(layer.weights for layer in layers)
    bits, stored = (
        sum(layer.weights * getattr(layer, name) for layer in layers) / max(1, weights)
        for name in ("bits", "stored_bits")
    )
    return f"{weights:,}", f"{bits:.2f}", f"{stored:.2f}", "", f"{sum(map(_bytes, layers)):,}"


def _bytes(layer: "LayerReport") -> int:
    return math.ceil(layer.weights * layer.stored_bits / 8)


def _below(report: "ExportReport") -> list[str]:
    """What fits no table, in lines."""
    floats = report.float_bits // 8
    # A small network's file holds more than weights.
    ratio = floats / max(1, report.tflite_bytes)
    smaller = f", {ratio:.1f}x smaller than the float32 weights alone" if ratio > 1.0 else ""
    kept = sum(_bytes(layer) for layer in report.layers if layer.stored_bits == FLOAT_BITS)
    left = f" and {kept:,} left float" if kept else ""
    lines = ["p: pinned"] if any(layer.pinned for layer in report.layers) else []
    lines += [
        f"file: {report.tflite_bytes:,} bytes ({report.zipped_bytes:,} zipped){smaller}; "
        f'optimize_for="{report.optimize_for}"',
        f"weights: {report.packed_weight_bytes:,} bytes packed{left}, {floats:,} in float32: "
        f"{report.compression:.2f}x fewer parameter bits",
        f"answers: {report.parity}"
        + (f", computed on {report.verified_on}" if report.verified_on != "host" else ""),
    ]
    if report.parity.caution:
        lines.append(report.parity.caution)
    if report.micro:
        lines.append(report.micro.in_words(report.tflite_bytes))
    elif report.optimize_for != "integer":
        lines.append("not for microcontrollers: TFLM does not run this kind of file")
    return lines + _notes(report.layers)


def _notes(layers: Sequence["LayerReport"]) -> list[str]:
    """Each reason once, with the kernels that it is the reason of."""
    kernels: dict[str, list[str]] = {}
    for layer in layers:
        if layer.note:
            kernels.setdefault(layer.note, []).append(
                f"{layer.name} ({layer.bits} bits stored in {layer.stored_bits})"
            )
    return [f"{note}: {listed(names)}" for note, names in kernels.items()]
