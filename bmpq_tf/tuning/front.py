"""The front of accuracy over size: which trials are on it, their files, and its picture."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.export.errors import ConversionError, ExportError
from bmpq_tf.export.pipeline import export_tflite
from bmpq_tf.export.report import ExportReport
from bmpq_tf.files import replacing, write_text


@dataclasses.dataclass(frozen=True)
class Point:
    """One finished trial.

    Attributes:
        trial: its name.
        accuracy: share of the validation images; or another metric, negative where less of it is
            better.
        compression: how many times fewer parameter bits than float32.
        choices: what the search chose.
        folder: where its `model.keras` is.
    """

    trial: str
    accuracy: float
    compression: float
    choices: dict[str, Any]
    folder: pathlib.Path


def front(points: Sequence[Point]) -> list[Point]:
    """Returns the points that no other one beats in both accuracy and size, the smallest first."""
    best, kept = -math.inf, []
    for point in sorted(points, key=lambda point: (-point.compression, -point.accuracy)):
        if point.accuracy > best:
            kept.append(point)
            best = point.accuracy
    return kept


def export_front(
    points: Sequence[Point], images: np.ndarray, folder: pathlib.Path
) -> list[ExportReport | None]:
    """Exports the models of a front as packed `.tflite` files, checked on these images, and writes
    `front.json`.

    The files of an earlier front in the folder, before the search was extended, are removed. A
    point whose export is refused has no file, and a `problem` in `front.json`.

    Returns:
        A report for each point; `None` where there is no file.
    """
    reports, told = [], []
    for point in points:
        model = keras_compat.load_model(point.folder / "model.keras")
        choices = {
            "trial": point.trial,
            "accuracy": point.accuracy,
            "compression": point.compression,
            **point.choices,
        }
        # The trial, too: two points may round to one compression.
        path = folder / f"front_{point.compression:.2f}x_{point.trial}.tflite"
        try:
            reports.append(export_tflite(model, path, verify_with=images, overwrite=True))
            told.append({**choices, "file": path.name, "tflite_bytes": reports[-1].tflite_bytes})
        except (ExportError, ConversionError) as error:
            reports.append(None)
            told.append({**choices, "file": None, "problem": str(error)})
    write_text(folder / "front.json", json.dumps(told, indent=1))
    for earlier in {path.name for path in folder.glob("front_*.tflite")} - {
        one["file"] for one in told
    }:
        (folder / earlier).unlink()
    return reports


def plot_front(
    points: Sequence[Point],
    path: pathlib.Path,
    title: str,
    axis: str = "accuracy on the validation images, %",
    scale: float = 100.0,
    lines: Mapping[str, float] | None = None,
) -> None:
    """Draws every trial, by budget, and the front through the best ones, as a PNG.

    Args:
        points: the trials.
        path: of the picture.
        title: above it.
        axis: what is drawn upwards.
        scale: what `Point.accuracy` is multiplied with; negative where less is better.
        lines: values on that axis to draw across the picture, by name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for budget in dict.fromkeys(point.choices["budget"] for point in points):
        of_budget = [point for point in points if point.choices["budget"] == budget]
        axes.scatter(
            [32 / point.compression for point in of_budget],
            [scale * point.accuracy for point in of_budget],
            s=28,
            label=budget,
        )
    best = front(points)
    axes.step(
        [32 / point.compression for point in best],
        [scale * point.accuracy for point in best],
        where="post",
        color="0.4",
        label="front",
    )
    for style, (name, value) in zip(("--", ":"), (lines or {}).items(), strict=False):
        axes.axhline(value, color="0.4", linewidth=1, linestyle=style, label=name)
    axes.set_xlabel("parameter bits a weight")
    axes.set_ylabel(axis)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, title="budget", title_fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
