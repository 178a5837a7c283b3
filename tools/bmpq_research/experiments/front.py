"""The front of accuracy over the bytes of the weights, files for devices beside it."""

import statistics
from collections.abc import Sequence

from bmpq_research.experiments.report import (
    Result,
    Row,
    accuracies,
    difference,
    paired,
    rows,
    spread,
)
from bmpq_research.markdown import table

JUDGE = "test"
COLUMNS = (
    "",
    "seeds",
    "weights, kB",
    "accuracy",
    "over float32, paired",
    "integer file in LiteRT",
    "file for TFLM, in TFLM",
    "over float32, paired",
)
# eml-eda's, after 500 epochs of search and up to 500 of fine-tuning, read off its published figure:
# kB of weights and points over its own float32 (86.1 %).
PEER_NAME = "mixprec-pruning"
PEER_SETTING = "resnet8@1/cifar10"
PEER = (
    ("8 bits", 77.0, 0.2),
    ("4 bits", 39.0, -0.6),
    ("mixed, channels pruned", 26.0, -1.7),
    ("mixed by channel", 22.0, -7.1),
    ("mixed by channel", 20.0, -8.3),
    ("2 bits", 19.0, -14.3),
    ("mixed, channels pruned", 15.0, -4.2),
)


def markdown(results: Sequence[Result]) -> str:
    """Builds the table of a front, the largest weights first.

    Args:
        results: lines of a results file of one data set. Differences are to the float model of the
            first network that has one, whatever other networks there are. The peer's points stand
            between those of ResNet-8 on CIFAR-10.

    Raises:
        ValueError: there is no float model.
    """
    found = [row for row in rows(results) if row.by_seed]
    floats = next((row for row in found if row.part == "float32"), None)
    if floats is None:
        raise ValueError("A front is held against the float model. Received: results without one.")
    lines = [(kilobytes(row), _cells(row, floats)) for row in found]
    if floats.setting == PEER_SETTING:
        lines += [(point[1], _peer_cells(*point)) for point in PEER]
    lines.sort(key=lambda line: line[0], reverse=True)
    return table(COLUMNS, (cells for _, cells in lines)) + "\n"


def kilobytes(row: Row) -> float:
    """Returns the thousands of bytes that a row's weights take, mean over seeds."""
    return statistics.fmean(result["parameter_bits"] for result in row.by_seed.values()) / 8000


def in_files(row: Row, kind: str) -> dict[int, float]:
    """Returns the accuracies of a row's files for devices in percent, by seed."""
    return {
        seed: 100 * result["device_files"][kind]["accuracy"][JUDGE]
        for seed, result in row.by_seed.items()
        if kind in result.get("device_files", {})
    }


def name_of(row: Row, floats: Row) -> str:
    """Returns what a table calls a row."""
    words = row.part.replace("/", ", ").replace("[", " (").replace("]", ")")
    return words if row.setting == floats.setting else f"{words}; {row.setting.split('/')[0]}"


def over_float(values: dict[int, float], floats: Row) -> str:
    """Returns the difference to the float model, paired by seed."""
    return difference(*paired(values, accuracies(floats, JUDGE)))


def _cells(row: Row, floats: Row) -> list[str]:
    own = accuracies(row, JUDGE)
    integer, micro = in_files(row, "integer"), in_files(row, "micro")
    return [
        name_of(row, floats),
        str(len(own)),
        f"{kilobytes(row):.1f}",
        spread(own.values()),
        "" if row is floats else over_float(own, floats),
        spread(integer.values()) if integer else "",
        spread(micro.values()) if micro else "",
        over_float(micro, floats) if micro else "",
    ]


def _peer_cells(name: str, size: float, points: float) -> list[str]:
    return [f"*{PEER_NAME}, {name}*", "", f"{size:.1f}", "", f"{points:+.1f}", "", "", ""]
