"""The command-line tools as a user meets them: help, a whole run, and bad input answered in a line."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from absl import flags

from bmpq_tf import console
from bmpq_tf.datasets import DATA_DIR_HELP, load_dataset, normalised_test_images
from bmpq_tf.export.convert import to_float_tflite

pytest.importorskip("sklearn")
ROOT = pathlib.Path(__file__).parent.parent


def tool(name, *arguments, ok=True):
    script = ROOT / ("examples" if name == "own_model" else "tools") / f"{name}.py"
    done = subprocess.run([sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    printed = tool("train", "--width=0.25", "--epochs=6", "--budget=9x", "--learning_rate=0.05", "--with_float", "--verbose=0", f"--out_dir={folder}")
    return folder, printed


def test_training_writes_what_the_report_promises(run):
    folder, printed = run
    report = json.loads((folder / "report.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == ["bits.png", "float.keras", "model.keras", "model.tflite", "report.json"]
    assert report["allocated_bits"] <= report["budget_bits"]
    assert report["accuracy"]["keras"] == report["accuracy"]["tflite"]
    assert report["agreement"] == 1.0
    assert (report["config"]["learning_rate"], report["config"]["candidate_bits"]) == (0.05, [2, 4, 8])
    assert report["max_abs_diff"] <= 1e-4 * max(0.01, report["logit_scale"])
    assert report["packed_weight_bytes"] <= 1.02 * report["ideal_weight_bytes"] + 64 * len(report["layers"])
    assert report["tflite_bytes"] == (folder / "model.tflite").stat().st_size
    assert [set(layer) >= {"name", "weights", "bits", "stored_bits", "pinned", "sensitivity"} for layer in report["layers"]] == [True] * 6
    assert [allocation["epoch"] for allocation in report["allocations"]] == [1, 2, 3, 4]
    assert (folder / "bits.png").read_bytes()[:4] == b"\x89PNG"
    assert "the file in LiteRT" in " ".join(printed.split())
    assert "Traceback" not in printed


def test_a_finished_run_is_not_overwritten_unasked(run):
    said = tool("train", f"--out_dir={run[0]}", ok=False)
    assert "The file exists already" in said


def test_export_and_evaluate_take_the_saved_model(run, tmp_path):
    folder, _ = run
    said = tool("export", folder / "model.keras", tmp_path / "again.tflite", "--dataset=digits")
    assert "top-1 equal to Keras on 100.00% of 360 images" in said
    assert (tmp_path / "again.tflite").read_bytes() == (folder / "model.tflite").read_bytes()
    said = tool("evaluate", tmp_path / "again.tflite", f"--keras={folder / 'model.keras'}")
    accuracy = json.loads((folder / "report.json").read_text())["accuracy"]["tflite"]
    assert f"accuracy in LiteRT {accuracy:.2%} on 360 images" in said
    assert "top-1 equal" in said


def test_grey_images_without_their_one_channel_are_judged_too(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.save(tmp_path / "grey.keras")
    (tmp_path / "grey.tflite").write_bytes(to_float_tflite(model))
    pixels, labels = load_dataset("digits").test
    images = pixels[..., 0].astype("float32")
    np.savez(tmp_path / "grey.npz", images=images, labels=labels)
    said = tool("evaluate", tmp_path / "grey.tflite", f"--data={tmp_path / 'grey.npz'}", f"--keras={tmp_path / 'grey.keras'}")
    accuracy = np.mean(model.predict(images, verbose=0).argmax(-1) == labels)
    assert f"accuracy in LiteRT {accuracy:.2%} on 360 images" in said
    assert "on 100.00%" in said


@pytest.mark.slow
def test_export_takes_inputs_of_ones_own_and_a_tolerance(run, tmp_path):
    folder, _ = run
    images = np.random.default_rng(0).standard_normal((40, 8, 8, 1)).astype("float32")
    np.save(tmp_path / "one.npy", images)
    np.savez(tmp_path / "named.npz", **{keras.models.load_model(folder / "model.keras").inputs[0].name: images})
    np.savez(tmp_path / "other.npz", other=images)
    inputs = [f"--calibrate_with={tmp_path / 'named.npz'}", f"--verify_with={tmp_path / 'one.npy'}"]
    said = tool("export", folder / "model.keras", tmp_path / "a.tflite", "--optimize_for=integer", "--tolerance=0.5", "--border=int8", *inputs)
    assert "of 40 images" in said
    for arguments, message in (
        (["--optimize_for=latency", "--tolerance=1e-6", *inputs[1:]], "more than the 1e-06 that"),
        (["--optimize_for=integer", f"--calibrate_with={tmp_path / 'other.npz'}"], "Arrays of these inputs are missing"),
        (["--tolerance=0.5"], 'tolerance= is a positive number and serves "latency" and "integer"'),
        ([f"--verify_with={tmp_path / 'none.npy'}"], "No such file of inputs"),
    ):
        said = tool("export", folder / "model.keras", tmp_path / "b.tflite", *arguments, ok=False)
        assert message in said
        assert "Traceback" not in said
    assert not (tmp_path / "b.tflite").exists()


def test_bad_input_is_answered_in_a_line(run, tmp_path):
    folder, _ = run
    (tmp_path / "broken.tflite").write_bytes(b"not a model at all")
    (tmp_path / "file").write_text("")
    for name, arguments, message in (
        ("evaluate", [tmp_path / "broken.tflite"], "LiteRT cannot read the file"),
        ("evaluate", [tmp_path / "none.tflite"], "No such file"),
        ("export", [folder / "model.keras", folder / "model.tflite"], "The file exists already"),
        ("export", [folder / "model.keras", tmp_path / "small.tflite", "--budget=30x"], "over its budget"),
        ("train", [f"--out_dir={tmp_path / 'file' / 'out'}"], "Nothing can be written"),
        ("train", ["--dataset=cifar10", f"--data_dir={tmp_path}"], "--data_dir"),
        ("foretell", ["--results=none.jsonl", "--costs=none.json"], "no such file. Received: --results=none.jsonl"),
        ("train", ["--budget=40x"], "The smallest this model reaches is"),
    ):
        said = tool(name, *arguments, ok=False)
        assert message in said
        assert "Traceback" not in said


@pytest.mark.parametrize(("name", "module"), [("evaluate", "sklearn"), ("tune", "keras_tuner")])
def test_what_is_not_installed_is_named_with_the_extra_that_brings_it(name, module, run, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{module!r}] = None")
    program = f"from bmpq_tf.tools import {name}; {name}.run()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", program, str(run[0] / "model.tflite")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment)
    assert done.returncode == 1
    assert f"error: this needs {module}, which is not installed. Install what the tools need: pip install '.[tools]'." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tilde_in_a_flag_is_the_home_folder(monkeypatch):
    own = flags.FlagValues()
    flags.DEFINE_string("out", "~/runs", "", flag_values=own)
    flags.DEFINE_list("costs", ["~/a", "b"], "", flag_values=own)
    flags.DEFINE_integer("seed", 0, "", flag_values=own)
    own(["program"])
    monkeypatch.setattr(console.flags, "FLAGS", own)
    monkeypatch.setenv("HOME", "/home/someone")
    console._expand_home()
    assert (own.out, own.costs, own.seed) == ("/home/someone/runs", ["/home/someone/a", "b"], 0)


@pytest.mark.parametrize("name", ["train", "export", "evaluate", "compare", "tune", "fidelity", "foretell"])
def test_help_shows_the_flags_and_an_example(name):
    said = tool(name, "--help", ok=False)
    assert f"python tools/{name}.py" in said
    assert "\n  --" in said.split("flags:", 1)[1]
    # One flag, one wording.
    assert name == "foretell" or DATA_DIR_HELP in " ".join(said.split())


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_cleaning_leaves_what_was_trained():
    done = subprocess.run(["make", "--no-print-directory", "--dry-run", "clean"], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout.split() == ["rm", "-rf", ".venv", "build", "*.egg-info"], done.stderr


def test_the_example_for_a_users_own_model_runs(tmp_path):
    said = tool("own_model", "--epochs=4", f"--out={tmp_path / 'own.tflite'}")
    assert "top-1 equal to Keras on 100.00%" in said
    assert (tmp_path / "own.tflite").exists()
    assert (tmp_path / "own_bmpq.keras").exists()


@pytest.mark.slow
def test_a_model_in_logits_and_data_of_ones_own_go_through_every_tool(run, tmp_path):
    folder, _ = run
    dataset = load_dataset("digits")
    images = np.concatenate([images for images, _ in normalised_test_images(dataset)])
    np.savez(tmp_path / "mine.npz", images=images, labels=dataset.test[1])
    mine = f"--data={tmp_path / 'mine.npz'}"
    said = tool("own_model", f"--model={folder / 'float.keras'}", mine, "--epochs=2", "--budget=6x", f"--out={tmp_path / 'own.tflite'}")
    assert "accuracy in LiteRT" in said
    assert keras.models.load_model(tmp_path / "own_bmpq.keras").loss.get_config()["from_logits"]
    said = tool("evaluate", tmp_path / "own.tflite", mine, f"--keras={tmp_path / 'own_bmpq.keras'}")
    assert "on 360 images" in said
    assert "top-1 equal" in said
    said = tool("export", tmp_path / "own_bmpq.keras", tmp_path / "fast.tflite", "--optimize_for=latency", f"--verify_with={tmp_path / 'mine.npz'}")
    assert "of 360 images" in said
    np.savez(tmp_path / "none.npz", pictures=images)
    binary = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")])
    binary.save(tmp_path / "binary.keras")
    (tmp_path / "binary.tflite").write_bytes(to_float_tflite(binary))
    for name, arguments, message in (
        ("own_model", [mine, f"--model={tmp_path / 'binary.keras'}"], "This script trains classifiers"),
        ("evaluate", [mine, tmp_path / "binary.tflite"], "Only classifiers are judged"),
        ("own_model", [mine], "A model of yours needs data of yours"),
        ("evaluate", [tmp_path / "own.tflite", f"--data={tmp_path / 'none.npz'}"], "The file needs `images` and `labels`"),
        ("tune", ["--model=digits_cnn", mine, f"--out_dir={tmp_path}"], "Data of yours need a model of yours"),
    ):
        assert message in tool(name, *arguments, ok=False)
