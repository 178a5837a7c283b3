"""The smallest budget that is good enough: resuming, the winner, and refusals."""

import json
import os
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled, small_data, small_model

import bmpq_tf
from bmpq_tf import InfeasibleBudgetError
from bmpq_tf.tuning.float_run import FloatRun
from bmpq_tf.tuning.search_data import fit_arguments, part_values
from bmpq_tf.tuning.search_settings import compiled_settings
from bmpq_tf.tuning.shared_runs import SharedRuns

pytest.importorskip("keras_tuner")

# Keras-tuner names a thread in a deprecated way.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
OUTPUTS = {"kind": 3, "mean": 1}


def test_settings_that_cannot_be_told_are_not_compared():
    class Untold(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.mean(y_pred)

        def get_config(self):
            raise AttributeError

    model = small_model()
    model.compile(keras.optimizers.SGD(0.1), lambda y, p: keras.ops.mean(p))
    told = compiled_settings(model)
    assert (told["optimizer"], told["optimizer.learning_rate"]) == ("SGD", pytest.approx(0.1))
    assert told["loss"] == "lambda"
    model.compile("sgd", Untold())
    assert compiled_settings(model) == {}


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(7)
    model = compiled(small_model(), metrics=["accuracy"])
    model.fit(*small_data(200), epochs=8, verbose=0)
    return model


def smallest(model, folder, **changed):
    data = small_data(200)
    # Batches of the size of parts, and runs of one length: TensorFlow traces the model once.
    told = {"max_drop": 5, "budgets": ["4x", "6x"], "epochs": 3, "full_epochs": 3, "verbose": 0}
    told["batch_size"] = 20
    return bmpq_tf.smallest_budget(model, data, data, folder=folder, **{**told, **changed})


@pytest.mark.slow
def test_the_winner_is_exported_and_a_finished_search_trains_nothing(
    trained, tmp_path, monkeypatch
):
    first = smallest(trained, tmp_path)
    assert first.drop == pytest.approx(100 * (first.float_value - first.value))
    assert first.drop <= 5
    images, labels = small_data(200)
    (answers,) = bmpq_tf.run_tflite(tmp_path / "smallest.tflite", images)
    assert np.mean(answers.argmax(-1) == labels) == pytest.approx(first.value, abs=0.011)
    assert (tmp_path / "front.png").read_bytes()[:4] == b"\x89PNG"
    told = json.loads((tmp_path / "smallest.json").read_text())
    assert told["budget"] == str(first.budget)
    assert told["tflite_bytes"] == (tmp_path / "smallest.tflite").stat().st_size
    page = (tmp_path / "smallest.html").read_text("utf-8")
    assert f"the budget of {first.budget}" in page
    assert f"{first.float_value:.2%}" in page
    monkeypatch.setattr(SharedRuns, "run", None)
    second = smallest(trained, tmp_path)
    assert (second.budget, second.value, second.drop) == (first.budget, first.value, first.drop)
    for changed, message in (
        ({"max_drop": 4}, "Received: max_drop=4; it was started with max_drop=5"),
        ({"epochs": 4}, "Received: short_epochs=4; it was started with short_epochs=3"),
        ({"budgets": ["4x"]}, r"budgets=\['4x'\]; it was started with budgets=\['4x', '6x'\]"),
        ({"batch_size": 8}, "batch_size=8; it was started with batch_size=20"),
    ):
        with pytest.raises(ValueError, match=message):
            smallest(trained, tmp_path, **changed)
    with pytest.raises(ValueError, match=r"Received: model='[^']*'; it was started with model="):
        smallest(compiled(small_model(), metrics=["accuracy"]), tmp_path)
    other = keras.models.clone_model(trained)
    other.set_weights(trained.get_weights())
    compiled(other, metrics=["accuracy"]).optimizer.learning_rate = 0.5
    with pytest.raises(ValueError, match=r"Received: optimizer.learning_rate=0.5; it was started"):
        smallest(other, tmp_path)


@pytest.mark.slow
def test_a_run_in_full_goes_on_where_it_was_killed(trained, tmp_path, capsys):
    trained_epochs = []

    class Killed(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            trained_epochs.append((self.params["epochs"], epoch))
            if trained_epochs[-1] == (6, 3) and not again:
                raise KeyboardInterrupt

    def train():
        return small_data(200), [Killed()]

    def search():
        return bmpq_tf.smallest_budget(
            trained,
            train,
            small_data(200),
            max_drop=5,
            budgets=["4x"],
            epochs=3,
            full_epochs=6,
            batch_size=20,
            folder=tmp_path,
            verbose=0,
        )

    again = False
    with pytest.raises(KeyboardInterrupt):
        search()
    again = True
    before = len(trained_epochs)
    search()
    assert "Resuming at epoch 4 of 6" in capsys.readouterr().out
    assert trained_epochs[before:] == [(6, 3), (6, 4), (6, 5)]
    assert not list(tmp_path.glob("**/backup"))


def test_a_tolerance_that_no_budget_meets_names_the_nearest(trained, tmp_path, monkeypatch):
    def run(self, budget, epochs, callbacks, backup=None):
        return {4.0: 0.32, 5.0: 0.31, 6.0: 0.3}[budget.compression], budget.compression, ()

    monkeypatch.setattr(SharedRuns, "run", run)
    with pytest.raises(
        ValueError,
        match=r"No budget is good enough. Received: max_drop=1, .* The nearest is 4x: accuracy "
        r"32.00%, .* points below float. Begin in another folder with a larger max_drop",
    ):
        smallest(trained, tmp_path, max_drop=1, budgets=["4x", "5x", "6x"])


@pytest.mark.slow
def test_the_float_model_is_trained_once_where_asked_for(tmp_path, monkeypatch):
    def model():
        keras.utils.set_random_seed(1)
        return compiled(small_model(), metrics=["accuracy"])

    constant = model()
    constant.get_layer("head").set_weights([np.zeros((6, 3)), np.array([0.0, 0.0, 1.0])])
    with pytest.raises(ValueError, match="no better than one that always gives the most"):
        smallest(constant, tmp_path / "constant")
    first = model()
    found_first = smallest(first, tmp_path / "a", float_epochs=8)
    monkeypatch.setattr(SharedRuns, "run", None)
    # In a notebook: the same object, which is trained by now.
    assert smallest(first, tmp_path / "a", float_epochs=8).value == found_first.value
    again = model()
    monkeypatch.setattr(type(again), "fit", None)
    second = smallest(again, tmp_path / "a", float_epochs=8)
    assert second.float_value == found_first.float_value > 0.4
    for ours, other in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, other)


def test_a_float_training_that_is_interrupted_may_be_asked_for_again(tmp_path):
    model = compiled(small_model(), metrics=["accuracy"])
    before = model.get_weights()
    interrupt = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: 1 / 0)
    data = {"x": small_data(64)[0], "y": small_data(64)[1]}
    run = FloatRun(model, lambda: (data, [interrupt]), data, None, 2, 0)
    with pytest.raises(ZeroDivisionError):
        run.train(tmp_path)
    for ours, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, other)
    assert not (tmp_path / "float.npz").exists()


def test_what_is_wrong_is_said_before_any_training(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(SharedRuns, "run", None)
    data = small_data(200)
    endless = tf.data.Dataset.from_tensor_slices(data).batch(8).repeat()
    for changed, message in (
        ({"metric": "auc"}, "no such metric. Received: metric='auc'. It has .*accuracy"),
        ({"direction": "up"}, "Received: direction='up'"),
        ({"max_drop": -1}, "Received: max_drop=-1"),
        ({"max_drop": "much"}, "Received: max_drop='much'"),
        ({"margin": -1}, "Received: margin=-1"),
        ({"max_drop": 100}, "Any model is within this tolerance. Received: max_drop=100 in points"),
        ({"epochs": 1}, "epochs is a whole number of 2 or more. Received: epochs=1"),
        ({"full_epochs": 2.5}, "Received: full_epochs=2.5"),
        ({"optimize_for": "speed"}, "Received: optimize_for='speed'"),
        ({"budgets": "8x"}, "budgets is a list of budgets"),
        ({"budgets": []}, r"budgets is a list of budgets .* Received: budgets=\[\]"),
        ({"budgets": ["4x", "900 B stored"]}, "each allows more than the one before"),
    ):
        with pytest.raises(ValueError, match=message):
            smallest(trained, tmp_path, **changed)
    with pytest.raises(InfeasibleBudgetError, match="budget='30x'"):
        smallest(trained, tmp_path, budgets=["4x", "30x"])
    for train, message in ((endless, "train never ends"), (data[0], "train is a pair of arrays")):
        with pytest.raises(ValueError, match=message):
            bmpq_tf.smallest_budget(trained, train, data, max_drop=1, folder=tmp_path)
    with pytest.raises(ValueError, match=r"return data, \[\]. Received: tuple with 2 parts"):
        bmpq_tf.smallest_budget(
            compiled(small_model(), metrics=["accuracy"]),
            lambda: data,
            data,
            max_drop=1,
            float_epochs=2,
            folder=tmp_path / "function",
        )
    with pytest.raises(ValueError, match="The model is not compiled"):
        smallest(small_model(), tmp_path / "other")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    with pytest.raises(ValueError, match=r"Received: KERASTUNER_TUNER_ID='chief'. Unset it"):
        smallest(trained, tmp_path)


@pytest.mark.slow
def test_a_loss_may_rise_as_far_as_is_said(trained, tmp_path):
    ended = smallest(trained, tmp_path, metric="loss", max_drop=0.5)
    assert ended.metric == "loss"
    assert ended.drop == pytest.approx(ended.value - ended.float_value)
    assert ended.drop <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "max_drop"), [("kind_accuracy", 10), ("mean_mae", 0.2)])
def test_metrics_of_several_outputs_are_named_as_keras_names_them(metric, max_drop, tmp_path):
    images, labels = small_data(200)
    flat = keras.layers.Flatten()(image := keras.Input((6, 6, 2)))
    outputs = {name: keras.layers.Dense(size, name=name) for name, size in OUTPUTS.items()}
    model = keras.Model(image, {name: layer(flat) for name, layer in outputs.items()})
    logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        "adam",
        {"kind": logits, "mean": "mse"},
        metrics={"kind": ["accuracy"], "mean": ["mae"]},
        jit_compile=False,
    )
    labelled = (images, {"kind": labels, "mean": images.mean((1, 2, 3))})
    batches = tf.data.Dataset.from_tensor_slices(labelled).batch(20)
    ended = bmpq_tf.smallest_budget(
        model,
        labelled,
        batches,
        metric=metric,
        max_drop=max_drop,
        budgets=["4x", "6x"],
        epochs=3,
        full_epochs=3,
        float_epochs=10,
        folder=tmp_path,
        verbose=0,
    )
    assert ended.drop + ended.error <= max_drop
    sign = -100 if metric == "kind_accuracy" else 1
    assert ended.drop == pytest.approx(sign * (ended.value - ended.float_value))


def test_parts_are_of_all_the_data_whatever_its_order(trained):
    images, labels = small_data(200)
    order = np.argsort(labels, kind="stable")
    sorted_data = fit_arguments((images[order], labels[order]), 8, "x")
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(20)
    whole = trained.evaluate(images, labels, return_dict=True, verbose=0)["accuracy"]
    for data in (sorted_data, fit_arguments(batches, 8, "x")):
        parts = part_values(trained, data, "accuracy")
        assert len(parts) == 10
        assert np.mean(parts) == pytest.approx(whole)
    assert part_values(trained, fit_arguments((images[:19], labels[:19]), 8, "x"), "accuracy") == ()


@pytest.mark.slow
def test_the_command_finds_a_model_for_digits_in_three_minutes(tmp_path):
    datasets = pytest.importorskip("sklearn.datasets")
    pixels, labels = datasets.load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8, 1) / 16).astype("float32")
    order = np.random.default_rng(0).permutation(len(labels))
    for name, part in (("test", order[:360]), ("train", order[360:])):
        np.savez(tmp_path / f"{name}.npz", images=images[part], labels=labels[part])
    keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(24, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    ).save(tmp_path / "digits.keras")
    command = [
        sys.executable,
        "-m",
        "bmpq_tf.cli.tune",
        f"--model={tmp_path / 'digits.keras'}",
        f"--data={tmp_path / 'train.npz'}",
        f"--test_data={tmp_path / 'test.npz'}",
        f"--out_dir={tmp_path / 'out'}",
        "--max_drop=1.0",
        "--float_epochs=30",
        "--validation=0.2",
        "--batch_size=32",
    ]

    def ask(*more):
        return subprocess.run(
            [*command, *more],
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "COLUMNS": "160"},
        )

    begun = time.monotonic()
    done = ask()
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - begun < 180
    told = json.loads((tmp_path / "out" / "smallest.json").read_text())
    assert told["drop"] <= 1.0
    (row,) = [line for line in done.stdout.splitlines() if "test data, in LiteRT" in line]
    before, after = (float(word.rstrip("%")) for word in row.split() if word.endswith("%"))
    assert after >= before - 1.0
    other = ask("--max_drop=2")
    assert other.returncode == 1
    assert "Received: max_drop=2.0; it was started with max_drop=1.0" in other.stderr
    assert "Received: --max_drop=1 --trials=3. Leave one out." in ask("--trials=3").stderr
    assert "Received: --schedules=cosine,step. Give one." in ask("--schedules=cosine,step").stderr
