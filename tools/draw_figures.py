"""Draws the figures of the documents as SVG into docs/images, from the results that are committed.

    python tools/draw_figures.py

`tests/research/test_figures.py` fails where a figure is not what this draws.
"""

import itertools
import math
import pathlib
import statistics

from bmpq_research.experiments.results import read_results
from bmpq_research.pictures import resnet8_front
from bmpq_research.pictures.picture import (
    BLUE,
    GREEN,
    INK,
    LINE,
    OF_BITS,
    ORANGE,
    PAPER,
    QUIET,
    RED,
    Picture,
)

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "docs/results"


def results(name: str, part: str) -> list[dict]:
    """Returns the finished results of one method of a grid, all seeds."""
    found = read_results(RESULTS / f"{name}.jsonl")
    return [
        result
        for result in found.values()
        if result["status"] == "done" and result["cell"].split("/", 2)[2].rsplit("/", 1)[0] == part
    ]


def front() -> str:
    """Accuracy over the bytes of the file, ResNet-20 at half its width."""
    points = [
        ("float32", "resnet20_12x", "float32", QUIET, (-12, -22, "end")),
        ("int8 after training", "resnet20_peers", "after_training_int8", ORANGE, (14, 20, "start")),
        ("int4 after training", "resnet20_peers", "after_training_int4", ORANGE, (14, 5, "start")),
        ("2 bits throughout", "resnet20_12x", "uniform2", GREEN, (14, 16, "start")),
        ("15.4x", "resnet20_12x", "bmpq/15.4x", BLUE, (-12, -8, "end")),
        ("12x", "resnet20_12x", "bmpq/12x", BLUE, (-12, -8, "end")),
        ("7.8x", "resnet20_12x", "bmpq/size of activation_density", BLUE, (-2, -26, "middle")),
    ]
    picture = Picture(760, 420, "Accuracy over the size of the file: ResNet-20 on CIFAR-10")
    left, right, top, bottom = 80, 720, 60, 340
    low, high, least, most = math.log(40), math.log(340), 69.0, 78.0

    def at(kilobytes: float, accuracy: float) -> tuple[float, float]:
        across = (math.log(kilobytes) - low) / (high - low)
        return left + across * (right - left), bottom - (accuracy - least) / (most - least) * (
            bottom - top
        )

    picture.text(left, 32, "The same network, the same training, smaller files", 18, weight="600")
    for accuracy in range(70, 79, 2):
        y = at(40, accuracy)[1]
        picture.line(left, y, right, y)
        picture.text(left - 10, y + 5, f"{accuracy} %", 13, QUIET, "end")
    for kilobytes in (50, 75, 100, 150, 200, 300):
        x = at(kilobytes, least)[0]
        picture.line(x, bottom, x, bottom + 6, QUIET)
        picture.text(x, bottom + 24, f"{kilobytes} kB", 13, QUIET, "middle")
    placed = {}
    for words, name, part, color, (right_of, below, anchor) in points:
        found = results(name, part)
        accuracies = [100 * result["tflite_accuracy"]["test"] for result in found]
        size = statistics.fmean(result["file_bytes"] for result in found) / 1000
        mean, spread = statistics.fmean(accuracies), statistics.stdev(accuracies)
        x, y = placed[words] = at(size, mean)
        picture.line(x, at(size, mean - spread)[1], x, at(size, mean + spread)[1], color, 2)
        picture.text(x + right_of, y + below, words, 14, color, anchor, "600")
        picture.dot(x, y, color)
    ours = [placed[words] for words in ("15.4x", "12x", "7.8x")]
    for (x1, y1), (x2, y2) in itertools.pairwise(ours):
        picture.line(x1, y1, x2, y2, BLUE, 2)
    picture.dot(300, 300, BLUE)
    picture.text(316, 305, "bmpq_tf, 2 to 8 bits a kernel under a budget", 14, BLUE)
    picture.text(
        left,
        394,
        "ResNet-20, half its channels, CIFAR-10, 10 epochs; files judged in LiteRT; "
        "mean and deviation of 3 or 5 seeds",
        12,
        QUIET,
    )
    return picture.svg()


def bit_planes() -> str:
    """A kernel's integers as planes of bits, and what each bit is worth."""
    integers = [[-7, 3, 0], [5, -2, 1], [6, -8, 4]]
    picture = Picture(760, 236, "The integers of a 4-bit kernel as four planes of bits")
    cell, top = 34, 84

    def grid(x, values, color_of, words, below, weight="normal"):
        picture.text(x + 1.5 * cell, 56, words, 15, anchor="middle", weight="600")
        for row, column in itertools.product(range(3), range(3)):
            value = values[row][column]
            fill, ink = color_of(value)
            picture.box(x + column * cell, top + row * cell, cell - 3, cell - 3, fill)
            picture.text(
                x + column * cell + (cell - 3) / 2,
                top + row * cell + 21,
                str(value).replace("-", "\u2212"),
                14,
                ink,
                "middle",
                weight,
            )
        picture.text(x + 1.5 * cell, top + 3 * cell + 24, below, 13, QUIET, "middle")

    grid(20, integers, lambda value: ("#eceef4", INK), "integers q", "weight = S \u00b7 q", "600")
    picture.text(146, top + 57, "=", 24, QUIET, "middle")
    for place, (bit, worth) in enumerate(((3, "\u22128"), (2, "4"), (1, "2"), (0, "1"))):
        planes = [[(value >> bit) & 1 for value in row] for row in integers]
        x = 178 + place * 146
        grid(
            x,
            planes,
            lambda on: (BLUE, PAPER) if on else ("#eceef4", QUIET),
            f"bit {bit}" + " (sign)" * (bit == 3),
            f"each one is worth {worth}",
        )
        if place:
            picture.text(x - 22, top + 57, "+", 22, QUIET, "middle")
    return picture.svg()


def sensitivities() -> str:
    """What training measured of VGG16's kernels, and what widths it gave them."""
    (run,) = (r for r in results("vgg16_quarter", "bmpq/12x") if r["config"]["seed"] == 0)
    channels = [3, 16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 128]
    weights = [9 * a * b for a, b in itertools.pairwise(channels)] + [128 * 10]
    if sum(weights) != run["float_bits"] / 32:
        raise ValueError("These are not the kernels of the run.")
    last = run["allocations"][-1]
    picture = Picture(760, 400, "Sensitivities, sizes and widths of VGG16's kernels")
    left, step = 150, 42
    picture.text(
        20, 32, "Sensitivity, size and width of every kernel: VGG16 at 12x", 18, weight="600"
    )
    for words, y in (("sensitivity", 130), ("weights", 250), ("width, bits", 322)):
        picture.text(20, y, words, 14, QUIET)
    most = max(last["sensitivity"].values())
    for place, (path, sensitivity) in enumerate(last["sensitivity"].items()):
        x, bits = left + place * step, last["bits"][path]
        tall = 110 * sensitivity / most
        picture.box(x, 170 - tall, step - 8, tall, ORANGE)
        tall = 90 * weights[place] / max(weights)
        picture.box(x, 285 - tall, step - 8, max(tall, 1), LINE)
        picture.box(x, 300, step - 8, 34, OF_BITS[bits])
        picture.text(
            x + (step - 8) / 2, 322, str(bits), 15, PAPER if bits >= 4 else INK, "middle", "600"
        )
        name = path.removesuffix("/kernel").removesuffix("_conv").removeprefix("block")
        picture.text(x + (step - 8) / 2, 354, name.replace("_", "."), 11, QUIET, "middle")
    picture.text(
        20,
        384,
        "CIFAR-10, a quarter of VGG16's channels, seed 0, last allocation. "
        "1.1 and head are pinned.",
        12,
        QUIET,
    )
    return picture.svg()


def program() -> str:
    """Four kernels, three widths, one budget: the best choice, found by trying all."""
    widths = (2, 4, 8)
    kernels = [
        ("stem", 1, (9.0, 1.6, 0.1)),
        ("middle", 4, (5.0, 0.9, 0.1)),
        ("hidden", 10, (2.0, 0.6, 0.1)),
        ("head", 2, (4.0, 0.5, 0.1)),
    ]
    budget = 56

    def bits_of(choice):
        return sum(weights * bits for (_, weights, _), bits in zip(kernels, choice, strict=True))

    def cost_of(choice):
        return sum(
            costs[widths.index(bits)] for (_, _, costs), bits in zip(kernels, choice, strict=True)
        )

    best = min(
        (choice for choice in itertools.product(widths, repeat=4) if bits_of(choice) <= budget),
        key=cost_of,
    )
    picture = Picture(
        760, 370, "The integer program: one width a kernel, least loss, within the budget"
    )
    picture.text(
        20, 32, "One width for each kernel: least loss within the budget", 18, weight="600"
    )
    for column, bits in enumerate(widths):
        picture.text(275 + column * 130, 68, f"{bits} bits", 14, QUIET, "middle", "600")
    picture.text(660, 68, "takes", 14, QUIET, "middle", "600")
    for row, (name, weights, costs) in enumerate(kernels):
        y = 82 + row * 50
        picture.text(20, y + 20, name, 15, weight="600")
        picture.text(20, y + 37, f"{weights},000 weights", 12, QUIET)
        for column, (bits, cost) in enumerate(zip(widths, costs, strict=True)):
            chosen = best[row] == bits
            picture.box(215 + column * 130, y, 120, 42, BLUE if chosen else "#eceef4", rx=5)
            picture.text(
                275 + column * 130,
                y + 26,
                f"loss +{cost:g}",
                14,
                PAPER if chosen else QUIET,
                "middle",
                "600" if chosen else "normal",
            )
        picture.text(660, y + 26, f"{weights * best[row]} kbit", 14, INK, "middle")
    x, wide = 215.0, 380 / budget
    picture.text(20, 318, "budget", 15, weight="600")
    for (name, weights, _), bits in zip(kernels, best, strict=True):
        across = weights * bits * wide
        picture.box(x, 298, across - 2, 30, OF_BITS[bits])
        picture.text(x + across / 2 - 1, 318, name, 12, PAPER if bits >= 4 else INK, "middle")
        x += across
    picture.line(215 + 380, 290, 215 + 380, 336, RED, 2)
    picture.text(604, 318, f"{bits_of(best)} of {budget} kbit", 14, INK)
    picture.text(
        20,
        354,
        "An example with round numbers: of all choices that fit, this one loses least, "
        f"+{cost_of(best):g}.",
        12,
        QUIET,
    )
    return picture.svg()


FIGURES = {
    "front": front,
    "resnet8_front": lambda: resnet8_front.draw(RESULTS / "resnet8_front.jsonl"),
    "bit_planes": bit_planes,
    "sensitivities": sensitivities,
    "integer_program": program,
}

if __name__ == "__main__":
    for name, draw in FIGURES.items():
        (ROOT / f"docs/images/{name}.svg").write_text(draw())
