"""What ResNet-8 loses over the bytes of its weights, beside the peer's published points."""

import math
import os
import statistics

from bmpq_research.experiments import front
from bmpq_research.experiments.report import Row, accuracies, rows
from bmpq_research.experiments.results import read_results
from bmpq_research.pictures.picture import BLUE, GREEN, INK, LINE, ORANGE, QUIET, Picture

_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 730, 70, 330
_LEAST_KB, _MOST_KB, _MOST_LOST = 13.5, 85.0, 16.0
_TAUGHT = "self_distillation"


def draw(path: str | os.PathLike) -> str:
    """Draws the front of a results file of ResNet-8, files judged in TFLM."""
    found = [row for row in rows(list(read_results(path).values())) if row.by_seed]
    floats = next(row for row in found if row.part == "float32")
    picture = Picture(760, 420, "Points lost over the bytes of the weights: ResNet-8 on CIFAR-10")
    picture.text(_LEFT, 32, "ResNet-8 of MLPerf Tiny: what smaller weights cost", 18, weight="600")
    _axes(picture)
    for name, size, points in front.PEER:
        x, y = _at(size, points)
        picture.dot(x, y, ORANGE, 6)
        # Off the line of float32.
        picture.text(x + 11, y + (18 if abs(y - _TOP) < 8 else 5), name, 12, ORANGE)
    seeds = set()
    for row in found:
        if row is floats:
            continue
        lost = _lost(row, floats)
        seeds.add(len(lost))
        x, y = _at(front.kilobytes(row), statistics.fmean(lost))
        color = BLUE if row.method == "bmpq" else GREEN
        picture.dot(x, y, color)
        points = round(statistics.fmean(lost), 1)
        words = f"{points:+.1f}" if points else "0.0"
        if _TAUGHT in row.part:
            picture.text(x, y - 12, f"{words}, self-distilled", 13, color, "middle", "600")
        elif color == GREEN:
            picture.text(x + 12, y + 5, words, 13, color, "start", "600")
        elif y - 24 < _TOP:
            # Above it would be the line of float32.
            picture.text(x - 12, y + 5, words, 13, color, "end", "600")
        else:
            picture.text(x, y - 12, words, 13, color, "middle", "600")
    _legend(picture, seeds, any(row.method.startswith("uniform") for row in found))
    return picture.svg()


def _lost(row: Row, floats: Row) -> list[float]:
    """Points over the float model of the same seed."""
    own, whole = front.in_files(row, "micro"), accuracies(floats, front.JUDGE)
    return [own[seed] - whole[seed] for seed in own.keys() & whole.keys()]


def _at(kilobytes: float, points: float) -> tuple[float, float]:
    span = math.log(_MOST_KB) - math.log(_LEAST_KB)
    across = (math.log(kilobytes) - math.log(_LEAST_KB)) / span
    return _LEFT + across * (_RIGHT - _LEFT), _TOP - points / _MOST_LOST * (_BOTTOM - _TOP)


def _axes(picture: Picture) -> None:
    for points in (0, -5, -10, -15):
        y = _at(_LEAST_KB, points)[1]
        picture.line(_LEFT, y, _RIGHT, y, INK if points == 0 else LINE)
        picture.text(_LEFT - 10, y + 5, f"{points:+d}" if points else "float32", 13, QUIET, "end")
    for kilobytes in (15, 20, 30, 40, 60, 80):
        x = _at(kilobytes, 0)[0]
        picture.line(x, _BOTTOM, x, _BOTTOM + 6, QUIET)
        picture.text(x, _BOTTOM + 24, f"{kilobytes} kB", 13, QUIET, "middle")


def _legend(picture: Picture, seeds: set[int], has_uniform: bool) -> None:
    lines = [(BLUE, "bmpq_tf, under a budget, 60 epochs")]
    lines += [(GREEN, "bmpq_tf, one width throughout")] if has_uniform else []
    lines += [(ORANGE, f"{front.PEER_NAME}, 500 epochs and more")]
    for number, (color, words) in enumerate(lines):
        picture.dot(440, 170 + 22 * number, color, 6)
        picture.text(454, 175 + 22 * number, words, 14, color)
    least, most = min(seeds, default=1), max(seeds, default=1)
    many = (
        "one seed" if most == 1 else f"{least} to {most} seeds" if least < most else f"{most} seeds"
    )
    below = (
        "Points from each one's own float32 over the bytes of the weights; a file holds more.",
        f"CIFAR-10, 8-bit activations; ours: files in TFLM, {many}. The peer's: off its figure.",
    )
    for number, words in enumerate(below):
        picture.text(_LEFT, 384 + 18 * number, words, 12, QUIET)
