"""Means, spreads and paired differences worked out by hand; pictures that are there."""

import pytest

from bmpq_research.experiments.activation_density import MEASURED
from bmpq_research.experiments.changes import kernels_changed, last_change
from bmpq_research.experiments.plots import plot_results
from bmpq_research.experiments.report import markdown, paired, rows


def result(
    part,
    seed,
    accuracy,
    status="done",
    compression=12.0,
    seconds=20.0,
    allocations=(),
    widths=(8, 2),
    hour=1,
):
    method, _, budget = part.partition("[x")[0].partition("/")
    config = {"seed": seed, "epochs": 10, "method": method, "budget": budget}
    told = {"cell": f"resnet20@0.5/cifar10/{part}/seed{seed}", "status": status, "config": config}
    if status != "done":
        return {**told, "epoch": 3, "reason": "no"}
    return {
        **told,
        "date": f"2026-01-01T{hour:02}:00:00+00:00",
        "accuracy": {"validation": accuracy, "test": accuracy - 0.01},
        "tflite_accuracy": {"validation": accuracy, "test": accuracy - 0.01},
        "compression": compression,
        "file_bytes": 50_000,
        "train_seconds": seconds,
        "train_cpu_seconds": 2 * seconds,
        "allocations": list(allocations),
        "widths": dict(zip(("stem/kernel", "head/kernel"), widths, strict=True)),
    }


ALLOCATIONS = [
    {
        "epoch": epoch,
        "status": status,
        "sensitivity": {"stem/kernel": 0.5, "head/kernel": 0.1 * epoch},
        "bits": dict(zip(("stem/kernel", "head/kernel"), bits, strict=True)),
    }
    for epoch, status, bits in (
        (1, "optimal", (8, 4)),
        (2, "optimal", (4, 2)),
        (3, "optimal", (4, 4)),
        (4, "optimal", (4, 4)),
    )
]
RESULTS = [
    result("float32", 0, 0.80, compression=1.0, seconds=10.0),
    result("float32", 1, 0.82, compression=1.0, seconds=10.0),
    *[
        result("bmpq/12x", seed, value, allocations=ALLOCATIONS[seed > 0 :])
        for seed, value in enumerate((0.80, 0.78, 0.85))
    ],
    result("random/12x", 0, 0.79),
    result("random/12x", 1, 0.75, compression=12.1, widths=(8, 3)),
    result("random/12x", 2, None, status="diverged"),
    result("uniform3", 0, 0.70, hour=8),
    result("bmpq/size of uniform3", 0, 0.75, allocations=ALLOCATIONS),
    result("error/99x", 0, None, status="infeasible"),
]


def test_differences_are_paired_by_seed():
    mean, error, seeds = paired({0: 3.0, 1: 5.0, 7: 100.0}, {0: 1.0, 1: 1.0, 2: -50.0})
    assert (mean, error, seeds) == (3.0, pytest.approx(1.0), 2)


def test_the_table_says_what_the_results_do():
    lines = {
        line.split("|")[1].strip(): line
        for line in markdown(RESULTS).splitlines()
        if line.startswith("|")
    }
    assert (
        lines["float32"]
        == "| float32 | 2 | 81.00 ± 1.41 |  |  | 81.00 | 1.00x | 50,000 | 1.00 (CPU 1.00) |  |  |"
    )
    assert lines["bmpq, 12x"] == (
        "| bmpq, 12x | 3 | 81.00 ± 3.61 | -2.00 ± 2.00 (2) |  | 81.00 | 12.00x | 50,000 | "
        "2.00 (CPU 2.00) | 1.3, 0.3, 0 |  |"
    )
    assert (
        "| 2 (seed 2: diverged in epoch 3) | 77.00 ± 2.83 | -4.00 ± 3.00 (2) | +2.00 ± 1.00 (2) |"
        in lines["random, 12x"]
    )
    assert "12.00x to 12.10x" in lines["random, 12x"]
    assert lines["random, 12x"].endswith("| 1.5 of 2 |")
    assert "| 70.00 | -10.00 (one seed) | +5.00 (one seed) |" in lines["uniform3"]
    assert lines["uniform3"].endswith("| 50,000 |  |  | 2.0 of 2 |"), (
        "times do not compare with a float run of seven hours before"
    )
    assert "| seed 0: infeasible | - |" in lines["error, 99x"]
    assert "| 80.00 ± 1.41 |" in markdown(RESULTS, "test")
    assert "judged on the test split" in markdown(RESULTS, "test")


def test_a_row_is_held_against_bmpq_of_its_own_budget_where_they_have_the_same_kernels():
    file = {**result("after_training_int4", 0, 0.7), "widths": {"arith.constant1": 4}}
    part = "bmpq/size of uniform3[activation_bits=8]"
    told = [
        file,
        result("bmpq/size of after_training_int4", 0, 0.75),
        result("bmpq/size of uniform3", 0, 0.6),
        result(part, 0, 0.7),
    ]
    told.append(result(f"{part}[x=1]", 0, 0.65))
    lines = {
        line.split("|")[1].strip(): line
        for line in markdown(told).splitlines()
        if line.startswith("|")
    }
    assert "| +5.00 (one seed) |" in lines["after_training_int4"]
    assert lines["after_training_int4"].endswith("|  |")
    assert "one seed" not in lines["bmpq, size of uniform3 (activation_bits=8)"]
    assert "| +5.00 (one seed) |" in lines["bmpq, size of uniform3 (activation_bits=8) (x=1)"]


def test_changes_are_counted_from_allocation_to_allocation():
    assert kernels_changed(ALLOCATIONS) == [2, 1, 0]
    assert kernels_changed([]) == kernels_changed(ALLOCATIONS[:1]) == []
    assert [last_change(ALLOCATIONS[:count]) for count in range(5)] == [None, 1, 2, 3, 3]
    # Activation density records every epoch's densities, between its decisions too.
    measured = {**ALLOCATIONS[0], "status": MEASURED, "epoch": 9}
    assert kernels_changed([measured, *ALLOCATIONS, measured]) == [2, 1, 0]
    assert last_change([measured, *ALLOCATIONS, measured]) == 3


def test_a_split_that_is_not_there_is_named():
    only_test = [{**one, "accuracy": {"test": 0.5}} for one in RESULTS[:2]]
    with pytest.raises(ValueError, match=r"judge='validation'; .* has test"):
        markdown(only_test)


def test_rows_group_seeds_in_the_order_of_the_file():
    assert [row.part for row in rows(RESULTS)] == [
        "float32",
        "bmpq/12x",
        "random/12x",
        "uniform3",
        "bmpq/size of uniform3",
        "error/99x",
    ]


def test_pictures_are_drawn(tmp_path):
    paths = plot_results(RESULTS, tmp_path)
    assert [path.name.rsplit("_", 1)[1] for path in paths] == [
        "accuracy.png",
        "widths.png",
        "sensitivity.png",
    ]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths)
