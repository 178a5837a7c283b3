"""The installed commands as a user meets them.

Help, a whole run, and bad input answered in a line.
"""

import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from absl import flags
from conftest import compiled, needs_arm64, small_data, small_model

from bmpq_tf import BMPQCallback, export_tflite, quantize_model, runtime_messages
from bmpq_tf.cli import program
from bmpq_tf.export.converter.convert import to_float_tflite

pytestmark = pytest.mark.apart

COMMANDS = ("arm64", "export", "evaluate", "inspect", "tune")


def command(name, *arguments, ok=True, **environment):
    """What `bmpq-NAME` prints."""
    line = [sys.executable, "-m", f"bmpq_tf.cli.{name}", *map(str, arguments)]
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=300, env={**env, **environment}
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if runtime_messages.VARIABLE not in environment:
        lines = done.stderr.splitlines()
        assert not [line for line in lines if runtime_messages.NOISE.match(line.encode())]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained model, its file, and data for both."""
    folder = tmp_path_factory.mktemp("commands")
    images, labels = small_data(64)
    model = compiled(quantize_model(small_model(), (2, 4, 8)))
    model.fit(images, labels, epochs=2, verbose=0, callbacks=[BMPQCallback("8x", verbose=0)])
    model.save(folder / "model.keras")
    export_tflite(model, folder / "model.tflite", verify_with=images)
    np.savez(folder / "data.npz", images=images, labels=labels)
    return folder


def test_export_and_evaluate_take_the_saved_model(folder, tmp_path):
    said = command(
        "export",
        folder / "model.keras",
        tmp_path / "again.tflite",
        f"--verify_with={folder / 'data.npz'}",
    )
    assert "top-1 equal to Keras on 100.00% of 64 inputs" in said
    assert str(tmp_path / "again.tflite") == said.splitlines()[0]
    assert len(said.splitlines()) <= 20
    assert (tmp_path / "again.tflite").read_bytes() == (folder / "model.tflite").read_bytes()
    said = command(
        "evaluate",
        tmp_path / "again.tflite",
        f"--data={folder / 'data.npz'}",
        f"--keras={folder / 'model.keras'}",
    )
    assert "accuracy in LiteRT" in said
    assert "on 64 images" in said
    assert "top-1 equal" in said
    assert len(said.splitlines()) == 2


@pytest.mark.slow
def test_what_the_runtimes_say_is_there_for_who_asks(folder):
    said = command("inspect", folder / "model.tflite", BMPQ_RUNTIME_MESSAGES="1", COLUMNS="40")
    assert "absl::InitializeLog" in said
    # In a pipe a row is a line, however narrow the window is.
    assert re.search(r"^│ depthwise/kernel │ .*│ +18 │$", said, re.MULTILINE), said


@pytest.mark.slow
def test_export_writes_a_report_with_what_it_measured_and_was_told(folder, tmp_path):
    model, data, page = folder / "model.keras", tmp_path / "named.npz", tmp_path / "report.html"
    path = tmp_path / "model.tflite"
    with np.load(folder / "data.npz") as arrays:
        # By the input's name, and in a column.
        np.savez(data, image=arrays["images"], labels=arrays["labels"][:, None])
    said = command(
        "export",
        model,
        path,
        f"--verify_with={data}",
        f"--report={page}",
        "--accuracy=float=0.75,int8=0.5",
    )
    assert f"{page}: the report" in said
    content = page.read_text("utf-8")
    evaluated = command("evaluate", path, f"--data={folder / 'data.npz'}")
    accuracy = evaluated.split("accuracy in LiteRT ")[1].split(" on ")[0]
    for told in ("75.00%", "50.00%", accuracy, "python -m bmpq_tf.cli.export", "8x"):
        assert told in content, told


@pytest.mark.slow
def test_a_report_that_cannot_be_written_is_refused_before_any_work(folder, tmp_path):
    page, other = tmp_path / "report.html", tmp_path / "other.tflite"
    page.write_text("mine")
    for arguments, message in (
        ([f"--report={page}"], "The file exists already"),
        (["--accuracy=float=0.75"], "--accuracy is for the report"),
        ([f"--report={tmp_path / 'b.html'}", "--accuracy=0.75"], "Accuracies are shares"),
    ):
        told = command("export", folder / "model.keras", other, *arguments, ok=False)
        assert message in told
        assert not other.exists()


@needs_arm64
@pytest.mark.slow
def test_export_and_evaluate_compute_on_arm_when_told(folder, tmp_path):
    data = folder / "data.npz"
    path, keras_file = tmp_path / "phone.tflite", folder / "model.keras"
    said = command("export", keras_file, path, f"--verify_with={data}", "--verify_on=arm64")
    assert "top-1 equal to Keras on 100.00% of 64 inputs, largest difference" in said
    assert ", computed on arm64\n" in said
    said = command("evaluate", path, f"--data={data}", f"--keras={keras_file}", "--on=arm64")
    assert "accuracy in LiteRT on arm64" in said
    assert "on 100.00%" in said
    assert "the emulated arm64 runtime is there" in command("arm64")


@pytest.mark.slow
def test_what_is_to_compute_on_arm_names_the_command_that_sets_it_up(folder, tmp_path):
    model, path = folder / "model.keras", tmp_path / "phone.tflite"
    none = {"BMPQ_ARM64": str(tmp_path / "none")}
    for arguments in (
        ["export", model, path, "--verify_on=arm64"],
        ["evaluate", model, "--on=arm64"],
    ):
        assert "Set it up with: bmpq-arm64" in command(*arguments, ok=False, **none)
    assert not path.exists()


@pytest.mark.slow
def test_export_takes_inputs_in_every_form_and_a_tolerance(folder, tmp_path):
    images, _ = small_data(40)
    np.save(tmp_path / "one.npy", images)
    np.savez(tmp_path / "named.npz", image=images)
    np.savez(tmp_path / "other.npz", other=images)
    inputs = [f"--calibrate_with={tmp_path / 'named.npz'}", f"--verify_with={tmp_path / 'one.npy'}"]
    said = command(
        "export",
        folder / "model.keras",
        tmp_path / "a.tflite",
        "--optimize_for=integer",
        "--tolerance=0.5",
        "--io_dtype=int8",
        *inputs,
    )
    assert "of 40 inputs" in said
    for arguments, message in (
        (["--optimize_for=latency", "--tolerance=1e-6", *inputs[1:]], "more than the 1e-06 that"),
        (
            ["--optimize_for=integer", f"--calibrate_with={tmp_path / 'other.npz'}"],
            "Arrays of these inputs are missing",
        ),
        (["--tolerance=-1"], "tolerance= is a positive number"),
        ([f"--verify_with={tmp_path / 'none.npy'}"], "No such file of inputs"),
    ):
        assert message in command(
            "export", folder / "model.keras", tmp_path / "b.tflite", *arguments, ok=False
        )
    assert not (tmp_path / "b.tflite").exists()


@pytest.mark.slow
def test_grey_images_without_their_one_channel_are_judged_too(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    model.save(tmp_path / "grey.keras")
    (tmp_path / "grey.tflite").write_bytes(to_float_tflite(model))
    images, labels = np.random.default_rng(0).random((30, 8, 8), np.float32), np.arange(30) % 10
    np.savez(tmp_path / "grey.npz", images=images, labels=labels)
    said = command(
        "evaluate",
        tmp_path / "grey.tflite",
        f"--data={tmp_path / 'grey.npz'}",
        f"--keras={tmp_path / 'grey.keras'}",
    )
    accuracy = np.mean(model.predict(images, verbose=0).argmax(-1) == labels)
    assert f"accuracy in LiteRT {accuracy:.2%} on 30 images" in said
    assert "on 100.00%" in said


@pytest.mark.slow
def test_a_file_that_is_there_is_not_overwritten_unasked(folder):
    said = command("export", folder / "model.keras", folder / "model.tflite", ok=False)
    assert "The file exists already" in said


@pytest.mark.slow
def test_bad_input_is_answered_in_a_line(folder, tmp_path):
    (tmp_path / "broken.tflite").write_bytes(b"not a model at all")
    np.savez(tmp_path / "none.npz", pictures=np.zeros(1))
    data = f"--data={folder / 'data.npz'}"
    images, labels = small_data(64)
    np.savez(tmp_path / "from_one.npz", images=images, labels=labels + 1)
    for name, arguments, message in (
        ("evaluate", [tmp_path / "broken.tflite", data], "Export or download it again"),
        ("evaluate", [tmp_path / "none.tflite", data], "No such file"),
        (
            "evaluate",
            [folder / "model.tflite", f"--data={tmp_path / 'none.npz'}"],
            "The file needs `images` and `labels`",
        ),
        (
            "evaluate",
            [folder / "model.tflite", f"--data={tmp_path / 'from_one.npz'}"],
            "Labels count from 0 to 2",
        ),
        (
            "export",
            [folder / "model.keras", tmp_path / "small.tflite", "--budget=30x"],
            "over its budget",
        ),
        ("inspect", [tmp_path / "broken.tflite"], "Not a TFLite model"),
        ("inspect", [folder / "model.tflite", "--vela=npu"], "Unknown accelerator"),
        ("tune", [f"--out_dir={tmp_path}", data], "There is no such file. Received: --model=None"),
    ):
        assert message in command(name, *arguments, ok=False)


@pytest.mark.slow
def test_what_is_not_installed_is_named_with_the_command_that_brings_it(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['keras_tuner'] = None")
    said = command("tune", ok=False, PYTHONPATH=str(tmp_path))
    assert (
        "error: this needs keras_tuner, which is not installed. Install it: pip install "
        "'bmpq_tf[tune]'." in said
    )


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS])
def test_help_shows_the_flags_and_an_example(name):
    said = command(name, "--help", ok=False)
    assert f"bmpq-{name} " in said
    assert "\n  --" in said.split("flags:", 1)[1]


@pytest.mark.slow
def test_inspect_prints_json(folder):
    told = json.loads(
        command("inspect", folder / "model.tflite", "--json").partition("WARNING:")[0]
    )
    assert told["zipped_bytes"] < told["bytes"]


@pytest.mark.slow
def test_inspect_shows_what_vela_makes_of_a_file(folder, tmp_path):
    pytest.importorskip("ethosu")
    images, _ = small_data(64)
    path = tmp_path / "npu.tflite"
    model = keras.models.load_model(folder / "model.keras")
    export_tflite(
        model, path, optimize_for="integer", io_dtype="int8", calibrate_with=images, tolerance=0.9
    )
    said = command("inspect", path, "--vela=ethos-u55-128", COLUMNS="160")
    assert "NPU bytes" in said
    assert "ethos-u55-128 by Vela" in said
    assert "of constants" in said
    said = command("inspect", path, "--vela=ethos-u55-128", "--json")
    told = json.loads(said.partition("WARNING:")[0])
    assert len(told["vela"]["kernels"]) == len(told["weights"])
    assert told["vela"]["accelerator"] == "ethos-u55-128"


def test_a_tilde_in_a_flag_is_the_home_folder(monkeypatch):
    own = flags.FlagValues()
    flags.DEFINE_string("out", "~/runs", "", flag_values=own)
    flags.DEFINE_list("costs", ["~/a", "b"], "", flag_values=own)
    flags.DEFINE_integer("seed", 0, "", flag_values=own)
    own(["program"])
    monkeypatch.setattr(program.flags, "FLAGS", own)
    monkeypatch.setenv("HOME", "/home/someone")
    program._expand_home()
    assert (own.out, own.costs, own.seed) == ("/home/someone/runs", ["/home/someone/a", "b"], 0)


@pytest.mark.slow
def test_export_starts_behind_a_layer_and_fixes_open_sizes(tmp_path):
    words = keras.Input((3,), dtype="string", name="words")
    values = keras.Input((None, 2), name="values")
    x = keras.layers.Embedding(9, 4)(keras.layers.Hashing(9, name="hashes")(words))
    x = [keras.layers.GlobalAveragePooling1D()(one) for one in (x, values)]
    x = keras.layers.Dense(2)(keras.layers.Concatenate()(x))
    quantize_model(keras.Model([words, values], x), pin=None).save(tmp_path / "model.keras")
    data = {"words": np.array([["a", "b", "c"]] * 8), "values": np.ones((8, 5, 2), "float32")}
    np.savez(tmp_path / "data.npz", **data)
    both = [tmp_path / "model.keras", tmp_path / "model.tflite"]
    start, given = "--inputs=hashes,values", f"--verify_with={tmp_path / 'data.npz'}"
    told = command("export", *both, start, "--input_shapes=values=five", ok=False)
    assert "Sizes are whole numbers joined by x" in told
    told = command("export", *both, start, given, "--input_shapes=values=5x2")
    assert "of 8 inputs" in told


@pytest.mark.slow
def test_a_plot_of_a_file_is_whole_whatever_its_name(folder, tmp_path):
    command("inspect", folder / "model.tflite", f"--plot={tmp_path / 'kernels'}")
    assert (tmp_path / "kernels").read_bytes().startswith(b"\x89PNG")
    assert os.listdir(tmp_path) == ["kernels"]


@pytest.mark.slow
def test_a_search_that_was_refused_may_be_asked_for_again(tmp_path):
    pytest.importorskip("keras_tuner")
    small_model().save(tmp_path / "model.keras")
    images, labels = small_data(64)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    asked = [
        *(f"--model={tmp_path / 'model.keras'}", f"--data={tmp_path / 'data.npz'}"),
        f"--out_dir={tmp_path / 'out'}",
    ]
    said = command("tune", *asked, "--test_data=nowhere.npz", ok=False)
    assert "--test_data is for the search for the smallest budget" in said
    assert not (tmp_path / "out").exists()
    asked.append("--max_drop=1")
    said = command("tune", *asked, "--test_data=nowhere.npz", ok=False)
    assert "nowhere.npz" in said
    said = command("tune", *asked, "--test_data=nowhere.npz", "--metric=loss", ok=False)
    assert "nowhere.npz" in said
    said = command("tune", *asked, "--budgets=64 kB flash, 48 kB ram", ok=False)
    assert "join the limits of one budget" in said
    np.savez(tmp_path / "data.npz", images=images, labels=labels + 1)
    said = command("tune", *asked, ok=False)
    assert "Labels count from 0 to 2" in said
    assert "from 1 to 3" in said
