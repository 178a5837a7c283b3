"""Pictures of a grid's results: accuracy over size, widths by layer, sensitivity over epochs."""

import os
import pathlib
import statistics
from collections.abc import Sequence

from bmpq_research.experiments.report import Result, Row, accuracies, rows
from bmpq_tf.files import replacing

_MARKERS = "osD^vPX*<>hd"


def plot_results(
    results: Sequence[Result], folder: str | os.PathLike, judge: str = "validation"
) -> list[pathlib.Path]:
    """Draws the results of a grid into a folder, for each model and data set.

    Returns:
        The paths of the PNG files.
    """
    drawn = []
    found = rows(results)
    for setting in dict.fromkeys(row.setting for row in found):
        of_setting = [row for row in found if row.setting == setting and row.by_seed]
        allocated = [row for row in of_setting if _last(row).get("allocations")]
        name = setting.replace("/", "_").replace("@", "_")
        if of_setting:
            drawn.append(
                _save(
                    _accuracy_over_size(of_setting, judge, setting),
                    folder,
                    f"{name}_{judge}_accuracy.png",
                )
            )
        if allocated:
            drawn.append(_save(_widths_by_layer(allocated, setting), folder, f"{name}_widths.png"))
            ours = next((row for row in allocated if row.method == "bmpq"), allocated[0])
            drawn.append(
                _save(_sensitivity_over_epochs(ours, setting), folder, f"{name}_sensitivity.png")
            )
    return drawn


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure, folder: str | os.PathLike, name: str) -> pathlib.Path:
    path = pathlib.Path(folder) / name
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    return path


def _last(row: Row) -> Result:
    return list(row.by_seed.values())[-1]


def _accuracy_over_size(of_setting: Sequence[Row], judge: str, setting: str):
    """Mean over seeds with every seed as a faint point.

    Size as parameter bits a weight, on a logarithmic axis; float as a line.

    What bit gradients reach at several budgets is one line.
    """
    figure = _figure(8.5, 5)
    axes = figure.subplots()
    quantized = [row for row in of_setting if row.method != "float32"]
    ours = []
    for number, row in enumerate(quantized or of_setting):
        values = accuracies(row, judge)
        sizes = {seed: 32 / row.by_seed[seed]["compression"] for seed in values}
        mean = (statistics.fmean(sizes.values()), statistics.fmean(values.values()))
        is_ours = row.method == "bmpq" and not row.is_changed
        ours += [mean] if is_ours else []
        color, marker = "C0" if is_ours else f"C{1 + number % 9}", _MARKERS[number % len(_MARKERS)]
        axes.scatter(
            list(sizes.values()),
            list(values.values()),
            s=12,
            color=color,
            marker=marker,
            alpha=0.4,
            linewidths=0,
        )
        axes.scatter(*mean, s=48, color=color, marker=marker, label=f"{row.part} ({len(values)})")
    if ours:
        axes.plot(*zip(*sorted(ours), strict=True), color="C0", linewidth=1, alpha=0.6, zorder=0)
    # A point at 32 bits would leave the others no room.
    for row in of_setting if quantized else ():
        if row.method == "float32":
            values = accuracies(row, judge).values()
            axes.axhline(
                statistics.fmean(values),
                color="black",
                linestyle="--",
                linewidth=1,
                label=f"float32 ({len(values)})",
            )
            axes.axhspan(min(values), max(values), color="black", alpha=0.06, linewidth=0)
    axes.set_xscale("log", base=2)
    every_size = [
        32 / result["compression"]
        for row in quantized or of_setting
        for result in row.by_seed.values()
    ]
    axes.set_xlim(0.93 * min(every_size), 1.07 * max(every_size))
    ticks = [
        bits
        for bits in (2, 2.25, 2.5, 2.75, 3, 3.5, 4, 6, 8, 16, 32)
        if axes.get_xlim()[0] <= bits <= axes.get_xlim()[1]
    ]
    axes.set_xticks(ticks, [f"{bits:g}" for bits in ticks])
    axes.minorticks_off()
    axes.set_xlabel("parameter bits a weight")
    axes.set_ylabel(f"accuracy on the {judge} split, %")
    axes.set_title(f"{setting}: means, and each seed", fontsize=10)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7, title="method (seeds)", title_fontsize=7)
    return figure


def _widths_by_layer(allocated: Sequence[Row], setting: str):
    """One line of cells for each method and seed, one column a kernel."""
    from matplotlib.colors import BoundaryNorm

    lines = [
        (f"{row.part}, seed {seed}", result["widths"])
        for row in allocated
        for seed, result in row.by_seed.items()
    ]
    kernels = list(lines[0][1])
    widths = [[of.get(kernel, 0) for kernel in kernels] for _, of in lines]
    figure = _figure(3.5 + 0.3 * len(kernels), 2.2 + 0.22 * len(lines))
    axes = figure.subplots()
    image = axes.imshow(
        widths,
        aspect="auto",
        cmap="viridis",
        norm=BoundaryNorm([width - 0.5 for width in range(2, 10)], 256),
    )
    for y, line in enumerate(widths):
        for x, width in enumerate(line):
            axes.text(
                x,
                y,
                str(width),
                ha="center",
                va="center",
                fontsize=6,
                color="white" if width < 6 else "black",
            )
    axes.set_yticks(range(len(lines)), [name for name, _ in lines], fontsize=7)
    axes.set_xticks(
        range(len(kernels)),
        [kernel.rsplit("/", 1)[0] for kernel in kernels],
        rotation=90,
        fontsize=7,
    )
    axes.set_title(f"{setting}: widths at the end", fontsize=10)
    figure.colorbar(image, ax=axes, ticks=range(2, 9), label="bits")
    return figure


def _sensitivity_over_epochs(row: Row, setting: str):
    """Each kernel's share of the sensitivities at every allocation: medians over seeds."""
    figure = _figure(8.5, 5)
    axes = figure.subplots()
    history = [result["allocations"] for result in row.by_seed.values()]
    steps = min(len(allocations) for allocations in history)
    kernels = [
        kernel for kernel, value in history[0][0]["sensitivity"].items() if value is not None
    ]
    epochs = [allocation["epoch"] + 1 for allocation in history[0][:steps]]
    colors = _colors(len(kernels))
    for kernel, color in zip(kernels, colors, strict=True):
        shares = [
            statistics.median(_share(allocations[step], kernel) for allocations in history)
            for step in range(steps)
        ]
        axes.plot(epochs, shares, marker=".", color=color, label=kernel.rsplit("/", 1)[0])
    axes.set_yscale("log")
    for axis_part in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_part(lambda share, _: f"{share:.0%}" if share >= 0.01 else f"{share:.1%}")
    axes.set_xlabel("allocation before epoch")
    axes.set_ylabel("share of the sensitivities at 2 bits")
    axes.set_title(
        f"{setting}: {row.part}, median of {len(history)} seed{'s' * (len(history) > 1)}",
        fontsize=10,
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    return figure


def _share(allocation: dict, kernel: str) -> float:
    total = sum(value for value in allocation["sensitivity"].values() if value)
    return (allocation["sensitivity"][kernel] or 0.0) / total


def _colors(count: int) -> list:
    """From the model's first kernels to its last."""
    from matplotlib import colormaps

    return [colormaps["viridis"](index / max(1, count - 1) * 0.95) for index in range(count)]
