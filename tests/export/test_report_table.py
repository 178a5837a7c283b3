"""An export's report, printed."""

import dataclasses
import types

import pytest

from bmpq_tf.allocation.budget import Budget
from bmpq_tf.export.micro.runtime import Arena
from bmpq_tf.export.micro.verification import MicroReport
from bmpq_tf.export.report import ExportReport, LayerReport
from bmpq_tf.export.verification.parity import Parity
from bmpq_tf.tuning.smallest import SmallestBudget

pytestmark = pytest.mark.quick

PARITY = Parity(7.6e-6, 22.3, 1.0, 64, False, 0.0, compared=64)


def report(*layers: LayerReport, **others) -> ExportReport:
    return ExportReport(
        path="runs/mine.tflite",
        tflite_bytes=18136,
        packed_weight_bytes=7416,
        ideal_weight_bytes=7416.0,
        allocated_bits=59328,
        float_bits=715264,
        layers=layers,
        **{"parity": PARITY, "zipped_bytes": 15002, **others},
    )


def many(count: int) -> list[LayerReport]:
    return [
        LayerReport(f"block{number}/kernel", 100 * (number + 1), 3, 4, False, 0.1, "3 lie in 4")
        for number in range(count)
    ]


def test_it_is_a_short_table_with_the_widths_the_file_and_how_it_answers():
    stem = LayerReport("stem/kernel", 289, 8, 8, True, 0.0155)
    told = str(report(stem, LayerReport("lookup/embeddings", 10, 32, 32, False, None)))
    lines = told.splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert cells == [
        ["stem/kernel", "289", "8 p", "8", "0.0155", "289"],
        ["lookup/embeddings", "10", "32", "float", "", "40"],
        ["total", "299", "8.80", "8.80", "", "329"],
    ]
    assert lines[0] == "runs/mine.tflite"
    assert lines[-5:] == [
        "p: pinned",
        "file: 18,136 bytes (15,002 zipped), 4.9x smaller than the float32 weights alone; "
        'optimize_for="size"',
        "weights: 7,416 bytes packed and 40 left float, 89,408 in float32: 12.06x fewer "
        "parameter bits",
        "answers: top-1 equal to Keras on 100.00% of 64 inputs, largest difference 7.6e-06 of 22.3",
        "not for microcontrollers: TFLM does not run this kind of file",
    ]


@pytest.mark.parametrize("columns", [80, 200])
def test_a_model_of_many_kernels_shows_the_largest_and_fits_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    told = str(report(*many(80)))
    lines = told.splitlines()
    # What stands below the table is prose, which the terminal wraps.
    assert max(map(len, told[: told.index("file: ")].splitlines())) <= min(columns, 100)
    assert len(lines) <= 36
    names = [line.split("│")[1].strip() for line in lines if "│" in line]
    largest = [f"block{number}/kernel" for number in range(57, 80)]
    assert names == [*largest, "57 smaller kernels", "total"]
    assert lines[-1].startswith("3 lie in 4: block0/kernel (3 bits stored in 4), ")
    assert lines[-1].endswith(" and 75 more")


def test_it_says_where_and_on_what_it_was_compared():
    random = dataclasses.replace(PARITY, generated=True, compared=0)
    told = str(report(*many(1), parity=random, verified_on="arm64"))
    assert (
        "answers: largest difference 7.6e-06 of 22.3 on 64 random inputs, computed on arm64" in told
    )
    micro = MicroReport(Arena(4096, 1024), ("CONV_2D",), 64, 1, 1.0)
    told = str(report(*many(1), micro=micro, optimize_for="micro"))
    assert "in TFLM: 18,136 bytes of flash, an arena of 4,096" in told
    assert "not for microcontrollers" not in told


def test_the_smallest_budget_prints_what_it_found_above_its_file():
    file = report(*many(2))
    found = SmallestBudget(
        Budget.parse("4x"), None, file, "accuracy", 0.981, 0.985, 0.4, 0.15, 4.02, 5
    )
    first, rest = str(found).split("\n", 1)
    assert first == "4x: accuracy 0.981, float 0.985; drop 0.4, standard error 0.15"
    assert rest == str(file)


def test_repr_keeps_every_field_and_a_notebook_shows_the_table():
    made = report(*many(2))
    assert "LayerReport(name='block1/kernel', weights=200" in repr(made)
    shown = []
    made._repr_pretty_(types.SimpleNamespace(text=shown.append), False)
    assert shown == [str(made)]
