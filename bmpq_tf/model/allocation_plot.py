"""The pictures of a run's allocations. They need matplotlib."""

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
    kernels = len(allocations[-1]["bits"]) if allocations else 0
    figure = _figure(allocations, 5 + 0.28 * len(allocations), 1.8 + 0.26 * kernels)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_widths(allocations, left)
    _draw_sensitivities(allocations, right)
    _name_kernels(allocations, left)
    if title:
        figure.suptitle(title, fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def allocation_pixels(allocations: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the widths, and the sensitivities, as a picture each: uint8 `(height, width, 3)`, of
    4,000 pixels a side at most.

    Raises:
        ValueError: there are no allocations.
    """
    pictures = []
    kernels = len(allocations[-1]["bits"]) if allocations else 0
    # Small and twice as wide as high, as TensorBoard's cards are, so that the names can be read.
    height = 0.9 + 0.2 * kernels
    for draw in (_draw_widths, _draw_sensitivities):
        figure = _figure(allocations, min(8.0, max(4.4, 2.0 * height)), height)
        axes = figure.subplots()
        draw(allocations, axes)
        _name_kernels(allocations, axes)
        figure.set_dpi(min(150.0, _MOST_PIXELS / max(figure.get_size_inches())))
        figure.canvas.draw()
        pictures.append(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    return pictures[0], pictures[1]


def _figure(allocations: Sequence[dict], width: float, height: float) -> Any:
    if not allocations:
        raise ValueError("There are no allocations to draw. Train with BMPQCallback first.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_widths(allocations: Sequence[dict], axes: Any) -> None:
    from matplotlib.colors import BoundaryNorm

    bits = [
        [allocation["bits"].get(kernel, 0) for allocation in allocations]
        for kernel in allocations[-1]["bits"]
    ]
    levels = sorted({width for row in bits for width in row})
    edges = [
        levels[0] - 0.5,
        *[(a + b) / 2 for a, b in itertools.pairwise(levels)],
        levels[-1] + 0.5,
    ]
    norm = BoundaryNorm(edges, 256)
    image = axes.imshow(bits, aspect="auto", cmap="viridis", norm=norm, interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, ticks=levels, label="bits")
    axes.set_title("width", fontsize=9)
    _name_epochs(allocations, axes)


def _draw_sensitivities(allocations: Sequence[dict], axes: Any) -> None:
    from matplotlib.colors import LogNorm

    told = [
        [allocation["sensitivity"].get(kernel) or float("nan") for allocation in allocations]
        for kernel in allocations[-1]["bits"]
    ]
    positive = [value for row in told for value in row if value > 0]
    norm = (
        LogNorm(min(positive), max(positive))
        if positive and min(positive) < max(positive)
        else None
    )
    image = axes.imshow(told, aspect="auto", cmap="magma", norm=norm, interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, label="sensitivity")
    axes.set_title("estimated loss increase at 2 bits", fontsize=9)
    _name_epochs(allocations, axes)


def _name_kernels(allocations: Sequence[dict], axes: Any) -> None:
    kernels = list(allocations[-1]["bits"])
    axes.set_yticks(range(len(kernels)), kernels, fontsize=7)


def _name_epochs(allocations: Sequence[dict], axes: Any) -> None:
    epochs = [allocation["epoch"] + 1 for allocation in allocations]
    step = max(1, len(epochs) // 8)
    axes.set_xticks(range(0, len(epochs), step), epochs[::step], fontsize=7)
    axes.set_xlabel("allocation before epoch", fontsize=8)
