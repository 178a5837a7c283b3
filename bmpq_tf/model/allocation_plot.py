"""The picture of a run's allocations. Needs matplotlib."""

import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from bmpq_tf.files import replacing

_MOST_PIXELS = 4000


def plot_allocations(allocations: Sequence[dict], path: str | os.PathLike, title: str = "") -> None:
    """Draws widths and sensitivities of every kernel over the epochs of its allocations, as a PNG.

    Args:
        allocations: as `BMPQCallback.history` gives them, at least one.
        path: where the picture goes.
        title: above it.

    Raises:
        ValueError: there are no allocations.
    """
    figure = _drawn(allocations, title)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def allocation_pixels(allocations: Sequence[dict]) -> np.ndarray:
    """Returns the same picture as uint8 `(height, width, 3)`, of 4,000 pixels a side at most.

    Raises:
        ValueError: there are no allocations.
    """
    figure = _drawn(allocations, "")
    figure.set_dpi(min(100.0, _MOST_PIXELS / max(figure.get_size_inches())))
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _drawn(allocations: Sequence[dict], title: str) -> Any:
    if not allocations:
        raise ValueError("There are no allocations to draw. Train with BMPQCallback first.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import BoundaryNorm, LogNorm
    from matplotlib.figure import Figure

    kernels = list(allocations[-1]["bits"])
    epochs = [allocation["epoch"] + 1 for allocation in allocations]
    bits = [[allocation["bits"].get(kernel, 0) for allocation in allocations] for kernel in kernels]
    told = [
        [allocation["sensitivity"].get(kernel) or float("nan") for allocation in allocations]
        for kernel in kernels
    ]

    figure = Figure(
        figsize=(5 + 0.28 * len(epochs), 1.8 + 0.26 * len(kernels)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    levels = sorted({width for row in bits for width in row})
    edges = [
        levels[0] - 0.5,
        *[(a + b) / 2 for a, b in itertools.pairwise(levels)],
        levels[-1] + 0.5,
    ]
    widths = left.imshow(
        bits, aspect="auto", cmap="viridis", norm=BoundaryNorm(edges, 256), interpolation="nearest"
    )
    figure.colorbar(widths, ax=left, ticks=levels, label="bits")
    positive = [value for row in told for value in row if value > 0]
    norm = (
        LogNorm(min(positive), max(positive))
        if positive and min(positive) < max(positive)
        else None
    )
    figure.colorbar(
        right.imshow(told, aspect="auto", cmap="magma", norm=norm, interpolation="nearest"),
        ax=right,
        label="sensitivity",
    )
    left.set_yticks(range(len(kernels)), kernels, fontsize=7)
    left.set_title("width", fontsize=9)
    right.set_title("estimated loss increase at 2 bits", fontsize=9)
    step = max(1, len(epochs) // 8)
    for axes in (left, right):
        axes.set_xticks(range(0, len(epochs), step), epochs[::step], fontsize=7)
        axes.set_xlabel("allocation before epoch", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure
