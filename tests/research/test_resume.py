"""A run killed in the middle of an epoch ends as the uninterrupted one."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FLAGS = [
    "--model=digits_cnn",
    "--channel_multiplier=0.25",
    "--epochs=8",
    "--settle_epochs=2",
    "--budget=8x",
    "--seed=3",
    "--learning_rate=0.05",
    "--verbose=2",
]


def command(tmp_path, name, *more):
    return [
        sys.executable,
        str(ROOT / "tools" / "train.py"),
        *FLAGS,
        f"--out_dir={tmp_path / name}",
        *more,
    ]


def test_sigkill_and_the_same_command_end_in_the_same_allocations(tmp_path):
    pytest.importorskip("sklearn")
    whole = subprocess.run(command(tmp_path, "whole"), capture_output=True, text=True, timeout=300)
    assert whole.returncode == 0, whole.stderr
    backup = f"--backup_dir={tmp_path / 'backup'}"
    with subprocess.Popen(
        command(tmp_path, "resumed", backup),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as killed:
        for line in killed.stdout:
            if line.startswith("Epoch 5/"):
                time.sleep(0.02)
                killed.send_signal(signal.SIGKILL)
                break
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "resumed" / "report.json").exists()
    resumed = subprocess.run(
        command(tmp_path, "resumed", backup), capture_output=True, text=True, timeout=300
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "Epoch 2/8" not in resumed.stdout
    reports = [
        json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "resumed")
    ]
    assert reports[0]["allocations"] == reports[1]["allocations"]
    assert [allocation["epoch"] for allocation in reports[1]["allocations"]] == [1, 2, 3, 4, 5, 6]
    bits = [[layer["bits"] for layer in told["layers"]] for told in reports]
    assert bits[0] == bits[1]
    other = subprocess.run(
        command(tmp_path, "third", backup, "--seed=4"), capture_output=True, text=True, timeout=300
    )
    assert other.returncode == 1
    assert "is of another run. Received: seed=4; the backup has seed=3" in other.stderr
