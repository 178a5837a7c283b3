"""A run that is killed at twenty random moments ends as if it had not been."""

import pathlib
import subprocess
import sys
import zipfile

import pytest

KILLS = 20


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_in_the_same_bytes(tmp_path):
    pytest.importorskip("sklearn")
    script = pathlib.Path(__file__).parent / "killed_runs.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "0", str(KILLS)],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kills = [line for line in done.stdout.splitlines() if line.startswith("kill ")]
    assert len(kills) == KILLS
    for place in ("training", "checkpoint", "export"):
        assert sum(f": {place}," in line for line in kills) >= 4
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert {file.name for file in killed.iterdir()} == {file.name for file in whole.iterdir()}
    for name in ("model.tflite", "report.json", "bits.png"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    # The rest of the file tells when it was saved.
    weights = [
        zipfile.ZipFile(folder / "model.keras").read("model.weights.h5")
        for folder in (whole, killed)
    ]
    assert weights[0] == weights[1]
