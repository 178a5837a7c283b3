"""One cell of a grid: how it is resumed, ended and judged."""

import pathlib
import subprocess
import sys

import pytest
from small_grid import BASE

from bmpq_research.experiments import tfmot_peer, training
from bmpq_research.experiments.cell import run_cell
from bmpq_research.experiments.grid import cells

pytest.importorskip("sklearn")
ROOT = pathlib.Path(__file__).parents[2]


def test_a_cell_whose_outcome_is_a_file_does_not_go_on_with_other_settings(tmp_path, monkeypatch):
    def killed(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(tfmot_peer.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(tfmot_peer.subprocess, "run", killed)
    (first,), (other,) = (
        cells({**BASE, "epochs": epochs, "grid": [{"methods": ["tfmot_int8"]}]})
        for epochs in (2, 3)
    )
    with pytest.raises(KeyboardInterrupt):
        run_cell(first, "", tmp_path, verbose=0)
    with pytest.raises(
        ValueError,
        match=(
            r"is of another run. Received: epochs=3; the backup has epochs=2. .* remove that "
            r"folder"
        ),
    ):
        run_cell(other, "", tmp_path, verbose=0)


def test_tfmots_process_ends_with_the_one_that_started_it():
    code = (
        "import sys, time; sys.path.insert(0, 'tools'); "
        "from bmpq_research.experiments.tfmot_peer import _end_with_parent; "
        "_end_with_parent(); print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout.readline() == b"1\n"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(30) == 1
    # While the other lives, it ends as it will.
    with subprocess.Popen(
        [sys.executable, "-c", code.replace("60", "1")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.wait(60) == 0


@pytest.mark.slow
def test_a_killed_cell_goes_on_at_its_last_epoch(tmp_path, monkeypatch):
    (cell,) = cells({**BASE, "epochs": 4, "grid": [{"methods": ["uniform4"]}]})
    original = training.BackupAndRestore.on_epoch_end

    def killed(self, epoch, logs=None):
        original(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training.BackupAndRestore, "on_epoch_end", killed)
        with pytest.raises(KeyboardInterrupt):
            run_cell(cell, "", tmp_path, verbose=0)
    trained = []
    monkeypatch.setattr(
        training.EpochCounter,
        "on_epoch_begin",
        lambda self, epoch, logs=None: (trained.append(epoch), self.epoch.assign(epoch)),
    )
    told = run_cell(cell, "", tmp_path, verbose=0)
    assert trained == [2, 3]
    assert [epoch["epoch"] for epoch in told["epochs"]] == [0, 1, 2, 3]
    assert told["status"] == "done"


def test_rounded_activations_are_judged_in_device_files_too(tmp_path):
    pytest.importorskip("tflite_micro")
    (cell,) = cells(
        {**BASE, "activation_bits": 8, "epochs": 4, "grid": [{"methods": ["uniform2"]}]}
    )
    told = run_cell(cell, "", tmp_path, verbose=0)
    integer, micro = (told["device_files"][kind] for kind in ("integer", "micro"))
    assert 0 < micro["file_bytes"] < integer["file_bytes"]
    for kind in (integer, micro):
        assert abs(kind["accuracy"]["test"] - told["accuracy"]["test"]) < 0.05


def test_dropped_channels_count_in_a_compression_and_their_epochs_in_the_time(tmp_path):
    block = {"methods": ["bmpq"], "budgets": ["1 kB"], "drop_channels": "squared", "drop_epochs": 1}
    dropped, floats = cells({**BASE, "epochs": 3, "grid": [block, {"methods": ["float32"]}]})
    told, whole = (run_cell(one, one.budget, tmp_path, verbose=0) for one in (dropped, floats))
    assert told["parameter_bits"] <= 8000
    assert told["float_bits"] == whole["float_bits"]
    assert told["compression"] == whole["float_bits"] / told["parameter_bits"]
    assert len(told["epochs"]) == 3
    assert told["train_seconds"] > sum(epoch["seconds"] for epoch in told["epochs"])
