"""What a person sees of a quantized model: its kernels, as data and as a printed table."""

import dataclasses
from collections.abc import Sequence

import keras
from rich.console import Console
from rich.table import Table

from bmpq_tf.allocation.kernel import FLOAT_BITS, Kernel
from bmpq_tf.model.kernels import check_built, model_kernels

AUTO = 'pin="auto"'


@dataclasses.dataclass(frozen=True)
class KernelRow:
    """One kernel of a model, as a row of `summary`.

    Attributes:
        path: the kernel's variable path.
        weights: how many.
        bits: its present width; 32 where it stays float.
        candidates: the widths that it may have.
        pinned: whether its width is fixed by decision.
        end: what `pin="auto"` made of an end of the model: `"small"`, so pinned, or `"large"`, so
            with candidates from 4 bits up; `None` for all others.
        sensitivity: the estimated loss increase at 2 bits, as of the last allocation; `None` before
            any.

    Example:
        >>> row = bmpq_tf.kernel_table(model)[0]
        >>> row.path, row.weights, row.bits, row.candidates, row.bytes
        ('conv/kernel', 36, 8, (2, 4, 8), 36.0)
    """

    path: str
    weights: int
    bits: int
    candidates: tuple[int, ...] = ()
    pinned: bool = False
    sensitivity: float | None = None
    end: str | None = None

    @property
    def bytes(self) -> float:
        """Parameter bits over 8."""
        return self.weights * self.bits / 8


def kernel_table(model: keras.Model) -> list[KernelRow]:
    """Returns every kernel of a model, in the model's order.

    Those that stay float too, since they count against a budget.

    Raises:
        ValueError: the model is not built.

    Example:
        >>> [(row.path, row.bits) for row in bmpq_tf.kernel_table(model)]
        [('conv/kernel', 8), ('head/kernel', 8)]
        >>> sum(row.bytes for row in bmpq_tf.kernel_table(float_model))
        5904.0
    """
    check_built(model)
    rows = []
    for state in model_kernels(model):
        history = state.quantizer.history if state.quantizer else ()
        told = history[-1]["sensitivity"] if history else None
        kernel = state.kernel
        rows.append(
            KernelRow(
                kernel.path,
                kernel.weights,
                state.bits,
                kernel.candidates,
                kernel.pinned,
                told,
                kernel.end,
            )
        )
    return rows


def summary(model: keras.Model, console: Console | None = None) -> None:
    """Prints a table of a model's kernels.

    Weights, bits, sensitivity (at the last allocation) and bytes.

    Args:
        model: a built model, quantized or float.
        console: where to print; the terminal by default.

    Raises:
        ValueError: the model is not built.

    Example:
        >>> bmpq_tf.summary(model)
        small
        ...
        │ total       │   1,476 │ 8.00 │             │ 1,476 │
        ...
        4.00x fewer parameter bits than float32; p: pinned
        >>> bmpq_tf.summary(bmpq_tf.quantize_model(float_model))
        small
        ...
        │ conv/kernel │      36 │  8 p │             │    36 │
        │ head/kernel │   1,440 │  8 e │             │ 1,440 │
        ...
        4.00x fewer parameter bits than float32; p: pinned
        p by pin="auto": small ends (2.4% of the weights): conv/kernel
        e by pin="auto": ends too large to pin (97.6% of the weights), so 4 or 8 bits: head/kernel
    """
    rows = kernel_table(model)
    table = rendered(rows, title=model.name)
    table.add_section()
    table.add_row(*_total(rows))
    table.caption = "\n".join(caption(rows))
    (console or Console()).print(table)


def as_markdown(rows: Sequence[KernelRow]) -> str:
    """Returns the table that `summary` prints in Markdown."""
    lines = ["| kernel | weights | bits | sensitivity | bytes |", "| --- | --: | --: | --: | --: |"]
    for row in rows:
        path, *others = _cells(row)
        lines.append(f"| `{path}` | {' | '.join(others)} |")
    lines.append(f"| {' | '.join(_total(rows))} |")
    return "\n".join([*lines, "", "<br>".join(caption(rows))])


def caption(rows: Sequence[KernelRow]) -> list[str]:
    """Returns the lines below the table: the size, and what `pin="auto"` decided."""
    weights, bits = sum(row.weights for row in rows), sum(row.weights * row.bits for row in rows)
    if not weights:
        return ["There is no kernel, so there is nothing to quantize."]
    return [
        f"{FLOAT_BITS * weights / bits:.2f}x fewer parameter bits than float32; p: pinned",
        *(
            f"{'p' if end == 'small' else 'e'} by {AUTO}: {said}"
            for end, said in told_ends(rows).items()
        ),
    ]


def told_ends(kernels: Sequence[KernelRow | Kernel]) -> dict[str, str]:
    """Returns what `pin="auto"` made of the model's ends in words, by `"small"` and `"large"`;
    empty where it decided on none.
    """
    total = sum(kernel.weights for kernel in kernels)
    told = {}
    for end in ("small", "large"):
        found = [kernel for kernel in kernels if kernel.end == end]
        if found:
            share = f"{sum(kernel.weights for kernel in found) / total:.1%} of the weights"
            widths = " or ".join(map(str, found[0].candidates))
            what = (
                f"small ends ({share})"
                if end == "small"
                else f"ends too large to pin ({share}), so {widths} bits"
            )
            told[end] = f"{what}: {', '.join(kernel.path for kernel in found)}"
    return told


def rendered(rows: Sequence[KernelRow], title: str) -> Table:
    """Returns the rows as a table to print."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("kernel", overflow="fold")
    for name in ("weights", "bits", "sensitivity", "bytes"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _total(rows: Sequence[KernelRow]) -> tuple[str, ...]:
    weights, bits = sum(row.weights for row in rows), sum(row.weights * row.bits for row in rows)
    average = f"{bits / weights:.2f}" if weights else ""
    return "total", f"{weights:,}", average, "", f"{bits / 8:,.0f}"


def _cells(row: KernelRow) -> tuple[str, ...]:
    return (
        row.path,
        f"{row.weights:,}",
        f"{row.bits}{' p' if row.pinned else ' e' if row.end == 'large' else ''}",
        "" if row.sensitivity is None else f"{row.sensitivity:.3g}",
        f"{row.bytes:,.0f}",
    )
