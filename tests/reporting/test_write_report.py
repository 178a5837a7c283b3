"""`write_report` on models that were really trained and exported."""

import dataclasses
import hashlib
import pathlib
import re

import keras
import pytest
from conftest import compiled, small_data, small_model
from report_examples import Reader

import bmpq_tf
from bmpq_tf.reporting.facts import collect
from bmpq_tf.reporting.tables import floats, sizes

_NOTHING = {
    "accuracy": {},
    "file_bytes": {},
    "metric": "accuracy",
    "budget": None,
    "title": None,
    "command": None,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model with a layer that stays float, its training and its file."""
    keras.utils.set_random_seed(3)
    images, labels = small_data(64)
    model = compiled(
        bmpq_tf.quantize_model(small_model(), (2, 4, 8), exclude="stem", pin=None),
        metrics=["accuracy"],
    )
    callback = bmpq_tf.BMPQCallback("3x", verbose=0)
    history = model.fit(images, labels, epochs=4, verbose=0, callbacks=[callback])
    path = tmp_path_factory.mktemp("run") / "small.tflite"
    return model, bmpq_tf.export_tflite(model, path, verify_with=images), history


def test_a_parts_file_is_told_beside_that_part(run, tmp_path):
    model, _, _ = run
    part = bmpq_tf.export_tflite(model, tmp_path / "part.tflite", inputs=["depthwise"])
    facts = collect(model, part, None, **_NOTHING)
    assert facts.compression == part.compression
    assert [one.name for one in facts.kernels] == [layer.name for layer in part.layers]
    assert facts.forms[0].weight_bytes == 4 * sum(layer.weights for layer in part.layers)


def test_the_report_tells_the_run(run, tmp_path):
    model, exported, history = run
    path = tmp_path / "new" / "report.html"
    text = bmpq_tf.write_report(
        path,
        model,
        exported,
        history,
        accuracy={"float": 0.9, "keras": 0.875, "tflite": 0.88, "pruned": 0.7},
        file_bytes={"float": 12_345},
        command="python mine.py",
    )
    read = Reader(path.read_text("utf-8"))
    words = " ".join([*read.words, *read.cells])
    for told in (
        *(row.path for row in bmpq_tf.kernel_table(model)),
        f"{exported.tflite_bytes:,}",
        hashlib.sha256(pathlib.Path(exported.path).read_bytes()).hexdigest(),
        "python mine.py",
        "left out by layers= or exclude=",
        "88.00%",
        "-2.00 points",
        "12,345",
        "pruned",
        "the file answers as the Keras model does",
        bmpq_tf.__version__,
        keras.__version__,
    ):
        assert told in words, told
        assert told in text, told
    assert str(tmp_path) not in words
    assert "within the budget of 3x" in text
    assert "val_loss" not in words


def test_the_parts_of_the_file_are_all_of_it_and_less_is_known_where_it_is_gone(run, tmp_path):
    model, exported, _ = run
    parts = collect(model, exported, None, **_NOTHING).parts
    assert sum(part.bytes for part in parts) == exported.tflite_bytes
    assert min(part.bytes for part in parts) > 0
    packed = sum(part.bytes for part in parts if part.name.startswith("weights"))
    assert packed == exported.packed_weight_bytes + 4 * 3 * 3 * 2 * 4
    moved = dataclasses.replace(exported, path=str(tmp_path / "gone.tflite"))
    parts = collect(model, moved, None, **_NOTHING).parts
    assert sum(part.bytes for part in parts) == exported.tflite_bytes
    assert [part.name for part in parts] == ["weights of quantized kernels", "everything else"]


def test_the_budget_tells_what_the_widths_use_of_each_limit(run):
    model, exported, _ = run
    (use,) = collect(model, exported, None, **_NOTHING).uses
    assert use.used == sum(row.weights * row.bits for row in bmpq_tf.kernel_table(model))
    assert use.used <= use.allowed
    told = {**_NOTHING, "budget": "10x"}
    (use,) = collect(model, exported, None, **told).uses
    assert use.share > 1
    device = {**_NOTHING, "budget": "2 kB stored, 64 kB flash, 20 kB ram"}
    uses = {use.name: use.used for use in collect(model, exported, None, **device).uses}
    assert uses["bytes of flash"] is uses["bytes of ram"] is None
    assert uses["stored bytes"] > 0


def test_what_stays_float_has_its_own_reason():
    inputs = keras.Input((4, 5))
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    x = keras.layers.Dense(4, kernel_constraint="non_neg", name="held")(x)
    x = keras.layers.Dense(4, name="left")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(x), name="floats")
    with pytest.warns(bmpq_tf.SkippedLayersWarning):
        model = bmpq_tf.quantize_model(model, exclude=["left", "query"])
    told = {name: why for name, _, why in floats(collect(model, None, None, **_NOTHING)).rows}
    kernels = {"attention/query/kernel", "attention/query/bias", "held/kernel", "left/kernel"}
    assert set(told) == kernels
    assert "constrained (NonNeg)" in told["held/kernel"]
    assert told["left/kernel"] == told["attention/query/kernel"]
    assert told["left/kernel"] == "left out by layers= or exclude="
    plain = floats(collect(small_model(), None, None, **_NOTHING)).rows
    assert {why for *_, why in plain} == {"the model is not quantized"}


def test_a_model_alone_is_reported_before_any_training(tmp_path):
    model = bmpq_tf.quantize_model(small_model())
    text = bmpq_tf.write_report(tmp_path / "report.html", model, title="mine <3")
    assert text.startswith("# mine <3\n")
    for told in ("There were no allocations", "not exported", "not allocated under a budget"):
        assert told in text
    assert "mine &lt;3" in (tmp_path / "report.html").read_text("utf-8")


def test_a_metric_that_is_no_share_keeps_its_unit(run):
    told = {**_NOTHING, "accuracy": {"float": 2.5, "tflite": 2.75}, "metric": "mae"}
    table = sizes(collect(run[0], run[1], None, **told))
    assert table.rows[-1][-2:] == ("2.75", "+0.25")


def test_a_report_of_another_model_or_state_is_refused(run, tmp_path):
    model, exported, _ = run
    path = tmp_path / "report.html"
    other = bmpq_tf.quantize_model(small_model(), (2, 4), exclude="stem", pin=None)
    with pytest.raises(ValueError, match="not of this model as it is now"):
        bmpq_tf.write_report(path, other, exported)
    with pytest.raises(ValueError, match="what export_tflite returned"):
        bmpq_tf.write_report(path, model, exported.to_dict())
    with pytest.raises(ValueError, match="history is what fit"):
        bmpq_tf.write_report(path, model, exported, "history")
    for wrong in ({"float": "good"}, {"float": float("nan")}, [0.5]):
        with pytest.raises(ValueError, match="accuracy"):
            bmpq_tf.write_report(path, model, exported, accuracy=wrong)
    with pytest.raises(ValueError, match="is built"):
        bmpq_tf.write_report(path, keras.Sequential([keras.layers.Dense(2)]))
    with pytest.raises(ValueError, match="has no kernels"):
        bmpq_tf.write_report(path, keras.Sequential([keras.Input((2,)), keras.layers.ReLU()]))
    assert not path.exists()


def test_a_page_that_is_there_is_kept_unless_told(run, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        bmpq_tf.write_report(path, run[0])
    assert path.read_text() == "mine"
    bmpq_tf.write_report(path, run[0], overwrite=True)
    assert path.read_text("utf-8").startswith("<!DOCTYPE html>")


def test_names_of_layers_that_mean_harm_reach_the_page_as_words(tmp_path):
    name = "<script>alert(1)<b>ключ"
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, name=name)(inputs), name="<i>model")
    bmpq_tf.write_report(tmp_path / "report.html", bmpq_tf.quantize_model(model, pin=None))
    read = Reader((tmp_path / "report.html").read_text("utf-8"))
    assert not read.count("script")
    assert f"{name}/kernel" in read.words
    assert "<i>model" in read.words


def test_a_callbacks_history_stands_for_the_allocations(run):
    model, exported, history = run
    told = collect(model, exported, history, **_NOTHING)
    given = bmpq_tf.BMPQCallback("3x")
    given.set_model(model)
    again = collect(model, exported, given.history, **_NOTHING)
    assert again.epochs == told.epochs
    assert again.kernels == told.kernels
    assert told.log_epochs == (1, 2, 3, 4)
    assert not again.logs


def test_no_clock_of_another_place_is_told(run):
    about = dict(collect(run[0], None, None, **_NOTHING).about)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", about["report written"])
    assert {"keras", "tensorflow", "Python", "machine"} <= set(about)
    assert "command" not in about
