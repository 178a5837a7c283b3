"""The scripts of tools/ as their reader meets them.

Help, a whole run, and bad input answered in a line.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from bmpq_research.datasets import load_dataset, normalised_test_images

pytest.importorskip("sklearn")
ROOT = pathlib.Path(__file__).parents[2]
# What mkdocs reads, and what draws the site's figures, take no flags.
SCRIPTS = sorted(
    path.stem
    for path in (ROOT / "tools").glob("*.py")
    if not path.stem.startswith(("site_", "draw_"))
)


def tool(name, *arguments, ok=True):
    script = [str(ROOT / ("examples" if name == "own_model" else "tools") / f"{name}.py")]
    if name in ("evaluate", "export"):
        script = ["-m", f"bmpq_tf.cli.{name}"]
    done = subprocess.run(
        [sys.executable, *script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    printed = tool(
        "train",
        "--channel_multiplier=0.25",
        "--epochs=6",
        "--budget=9x",
        "--learning_rate=0.05",
        "--with_float",
        "--verbose=0",
        f"--out_dir={folder}",
    )
    return folder, printed


def test_training_writes_what_the_report_promises(run):
    folder, printed = run
    report = json.loads((folder / "report.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == [
        "bits.png",
        "float.keras",
        "model.keras",
        "model.tflite",
        "report.html",
        "report.json",
    ]
    assert report["allocated_bits"] <= report["budget_bits"]
    assert report["accuracy"]["keras"] == report["accuracy"]["tflite"]
    parity = report["parity"]
    assert parity["agreement"] == 1.0
    assert (report["config"]["learning_rate"], report["config"]["candidate_bits"]) == (
        0.05,
        [2, 4, 8],
    )
    assert parity["max_abs_diff"] <= 1e-4 * max(0.01, parity["logit_scale"])
    assert report["packed_weight_bytes"] <= 1.02 * report["ideal_weight_bytes"] + 64 * len(
        report["layers"]
    )
    assert report["tflite_bytes"] == (folder / "model.tflite").stat().st_size
    assert [
        set(layer) >= {"name", "weights", "bits", "stored_bits", "pinned", "sensitivity"}
        for layer in report["layers"]
    ] == [True] * 6
    assert [allocation["epoch"] for allocation in report["allocations"]] == [1, 2, 3, 4]
    assert (folder / "bits.png").read_bytes()[:4] == b"\x89PNG"
    assert "the file in LiteRT" in " ".join(printed.split())
    assert "Traceback" not in printed


def test_a_finished_run_is_not_overwritten_unasked(run):
    said = tool("train", f"--out_dir={run[0]}", ok=False)
    assert "The file exists already" in said


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_cleaning_leaves_what_was_trained():
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "clean"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.stdout.split() == ["rm", "-rf", ".venv", "build", "*.egg-info"], done.stderr


def test_the_example_for_a_users_own_model_runs(tmp_path):
    said = tool("own_model", "--epochs=4", f"--out={tmp_path / 'own.tflite'}")
    assert "top-1 equal to Keras on 100.00%" in said
    assert (tmp_path / "own.tflite").exists()
    assert (tmp_path / "own_bmpq.keras").exists()


def test_the_installed_commands_take_what_the_scripts_write(run, tmp_path):
    folder, _ = run
    arrays = tmp_path / "digits.npz"
    assert "360 images of digits (test)" in tool("save_arrays", f"--out={arrays}")
    said = tool(
        "export", folder / "model.keras", tmp_path / "again.tflite", f"--verify_with={arrays}"
    )
    assert "top-1 equal to Keras on 100.00% of 360 inputs" in said
    assert (tmp_path / "again.tflite").read_bytes() == (folder / "model.tflite").read_bytes()
    accuracy = json.loads((folder / "report.json").read_text())["accuracy"]["tflite"]
    assert f"accuracy in LiteRT {accuracy:.2%} on 360 images" in tool(
        "evaluate", tmp_path / "again.tflite", f"--data={arrays}"
    )


def test_bad_input_is_answered_in_a_line(tmp_path):
    (tmp_path / "file").write_text("")
    for name, arguments, message in (
        ("train", [f"--out_dir={tmp_path / 'file' / 'out'}"], "Nothing can be written"),
        ("train", ["--dataset=cifar10", f"--data_dir={tmp_path}"], "--data_dir"),
        (
            "predicted_losses",
            ["--results=none.jsonl", "--costs=none.json"],
            "no such file. Received: --results=none.jsonl",
        ),
        ("train", ["--budget=40x"], "The smallest this model reaches is"),
        (
            "save_arrays",
            ["stray", f"--out={tmp_path / 'x.npz'}"],
            "takes flags only. Received: ['stray']",
        ),
    ):
        said = tool(name, *arguments, ok=False)
        assert message in said
        assert "Traceback" not in said


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_the_flags_and_an_example(name):
    said = tool(name, "--help", ok=False)
    assert f"python tools/{name}.py" in said
    assert "\n  --" in said.split("flags:", 1)[1]


@pytest.mark.slow
def test_the_example_takes_a_model_in_logits_and_data_of_ones_own(run, tmp_path):
    folder, _ = run
    dataset = load_dataset("digits")
    images = np.concatenate([images for images, _ in normalised_test_images(dataset)])
    np.savez(tmp_path / "mine.npz", images=images, labels=dataset.test[1])
    mine = f"--data={tmp_path / 'mine.npz'}"
    said = tool(
        "own_model",
        f"--model={folder / 'float.keras'}",
        mine,
        "--epochs=2",
        "--budget=6x",
        f"--out={tmp_path / 'own.tflite'}",
    )
    assert "accuracy in LiteRT" in said
    assert keras.models.load_model(tmp_path / "own_bmpq.keras").loss.get_config()["from_logits"]
    binary = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    binary.save(tmp_path / "binary.keras")
    for arguments, message in (
        ([mine, f"--model={tmp_path / 'binary.keras'}"], "This script trains classifiers"),
        ([mine], "A model of yours needs data of yours"),
    ):
        assert message in tool("own_model", *arguments, ok=False)
