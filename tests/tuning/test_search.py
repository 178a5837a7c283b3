"""The search for a front: what counts as one, what is refused, and a whole search in three
processes.
"""

import io
import json
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import small_data, small_model
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bmpq_tf import ExportError, InfeasibleBudgetError, quantize_model

pytest.importorskip("keras_tuner")
from bmpq_tf.tuning import front as fronts
from bmpq_tf.tuning import search as searches
from bmpq_tf.tuning import search_settings
from bmpq_tf.tuning.front import Point, export_front, front
from bmpq_tf.tuning.search import Problem, Space
from bmpq_tf.tuning.search_progress import SearchProgress

ROOT = pathlib.Path(__file__).parents[2]
WHOLE = {
    "budgets": ["10x"],
    "candidates": [(2, 4)],
    "learning_rates": (0.01, 0.1),
    "schedules": ["cosine"],
    "epochs": 4,
}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), max_size=12))
def test_the_front_is_what_no_other_point_beats(pairs):
    points = [
        Point(str(number), accuracy / 5, float(size), {}, pathlib.Path())
        for number, (accuracy, size) in enumerate(pairs)
    ]
    kept = front(points)

    def beaten(point):
        better = [
            o for o in points if o.accuracy >= point.accuracy and o.compression >= point.compression
        ]
        return any(
            (o.accuracy, o.compression) != (point.accuracy, point.compression) for o in better
        )

    wanted = {(point.accuracy, point.compression) for point in points if not beaten(point)}
    assert [(point.accuracy, point.compression) for point in kept] == sorted(
        wanted, key=lambda pair: -pair[1]
    )


def test_each_trial_tells_its_choices_its_result_and_the_time_left():
    seconds = [0.0]
    screen = io.StringIO()
    console = Console(file=screen, width=200, highlight=False)
    chosen = {
        "budget": "10x",
        "candidate_bits": "2,4",
        "learning_rate": 0.0512,
        "schedule": "cosine",
    }
    for verbose in (1, 0):
        told = SearchProgress(20, verbose, console, lambda: seconds[0])
        told.begin(4, chosen)
        seconds[0] += 30
        told.end(0.912, 9.83)
        told.begin(5, chosen)
        seconds[0] += 10
        told.failed("The budget cannot be met.")
        told.begin(6, chosen)
    assert screen.getvalue().splitlines() == [
        "trial 4 of 20: 10x, 2,4 bits, learning rate 0.0512, cosine",
        "trial 4 of 20: accuracy 91.20% at 9.83x",
        # Sixteen of thirty seconds, then fifteen of twenty.
        "trial 5 of 20: 10x, 2,4 bits, learning rate 0.0512, cosine; about 8 min 0 s left",
        "trial 5 of 20: The budget cannot be met.",
        "trial 6 of 20: 10x, 2,4 bits, learning rate 0.0512, cosine; about 5 min 0 s left",
    ]


def test_a_space_is_checked_before_any_training():
    for change, message in (
        ({"budgets": []}, "nothing to search in"),
        ({"learning_rates": (0.1, 0.01)}, r"learning_rates=\(0.1, 0.01\)"),
        ({"schedules": ["linear"]}, r"Unknown schedule. Received: schedules=\['linear'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            Space(**{**WHOLE, **change})
    Space(**{**WHOLE, "candidates": [(8,), (2, 4)]}).check(small_model())
    with pytest.raises(InfeasibleBudgetError, match="budget='10x'"):
        Space(**{**WHOLE, "candidates": [(8,)]}).check(small_model())


def test_a_softmax_at_the_end_is_seen():
    model = small_model()
    assert Problem(model, None, None).from_logits
    ended = keras.Model(model.input, keras.layers.Dense(3, activation="softmax")(model.output))
    assert not Problem(ended, None, None).from_logits
    wrapped = keras.Sequential(
        [keras.Input(model.input.shape[1:]), keras.Sequential([model, keras.layers.Softmax()])]
    )
    assert not Problem(wrapped, None, None).from_logits


@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
def test_failed_trials_in_a_row_do_not_end_a_search(tmp_path, monkeypatch):
    trained = []

    def train_choice(problem, chosen, epochs, seed, verbose):
        trained.append(chosen["budget"])
        if len(trained) < 6:
            raise InfeasibleBudgetError("too little")
        return quantize_model(problem.model, (2, 4))

    monkeypatch.setattr(searches, "train_choice", train_choice)
    problem = Problem(small_model(), None, small_data())
    space = Space(**{**WHOLE, "budgets": ["6x", "8x", "10x"]})
    tuner = searches.FrontTuner(problem, space, "random", 7, 0, tmp_path)
    tuner.search()
    assert len(trained) == 7
    assert len(tuner.points()) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
def test_what_ends_every_trial_ends_the_search_and_is_tried_again(tmp_path, monkeypatch):
    def train_choice(problem, chosen, epochs, seed, verbose):
        return quantize_model(problem.model, (2, 4))

    def tuner():
        return searches.FrontTuner(problem, Space(**WHOLE), "random", 2, 0, tmp_path)

    def full(path):
        raise OSError("No space left on device")

    monkeypatch.setattr(searches, "train_choice", train_choice)
    problem = Problem(small_model(), None, small_data())
    with monkeypatch.context() as broken:
        broken.setattr(searches, "replacing", full)
        with pytest.raises(OSError, match="No space left"):
            searches.run_search(tuner())
    again = tuner()
    searches.run_search(again)
    assert len(again.points()) == 2


def test_a_search_goes_on_with_the_same_settings_and_without_what_older_ones_did_not_note(tmp_path):
    told = {"budgets": ["4x"], "weights": "a"}
    search_settings.note(tmp_path, told)
    search_settings.check(tmp_path, told, newer=["weights"])
    with pytest.raises(ValueError, match=r"is another one. Received: weights='b'; .*weights='a'"):
        search_settings.check(tmp_path, {**told, "weights": "b"}, newer=["weights"])
    older = tmp_path / "older"
    older.mkdir()
    search_settings.note(older, {"budgets": ["4x"]})
    search_settings.check(older, told, newer=["weights"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
@pytest.mark.parametrize(
    "search",
    [
        pytest.param(name, marks=() if name == "random" else pytest.mark.slow)
        for name in sorted(searches.SEARCHES)
    ],
)
def test_every_search_goes_on_after_a_stop(search, tmp_path, monkeypatch):
    trained = []

    def train_choice(problem, chosen, epochs, seed, verbose):
        trained.append(chosen)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return quantize_model(problem.model, (2, 4))

    monkeypatch.setattr(searches, "train_choice", train_choice)
    problem = Problem(small_model(), None, small_data())
    space = Space(**{**WHOLE, "budgets": ["6x", "8x", "10x"]})
    with pytest.raises(KeyboardInterrupt):
        searches.FrontTuner(problem, space, search, 5, 0, tmp_path).search()
    tuner = searches.FrontTuner(problem, space, search, 5, 0, tmp_path)
    tuner.search()
    assert len(tuner.points()) == 5
    # The one that was stopped is trained again, and no other.
    assert len(trained) == 6
    assert trained[3] == trained[2]


def test_a_point_whose_export_is_refused_does_not_cost_the_others(tmp_path, monkeypatch):
    points = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        quantize_model(small_model(), (2, 4)).save(tmp_path / name / "model.keras")
        points.append(Point(name, 0.5, 8.0, {"budget": "8x"}, tmp_path / name))
    honest = fronts.export_tflite

    def export(model, path, **more):
        if path.name.endswith("_a.tflite"):
            raise ExportError("it differs")
        return honest(model, path, **more)

    monkeypatch.setattr(fronts, "export_tflite", export)
    reports = export_front(points, small_data()[0], tmp_path)
    assert [report is None for report in reports] == [True, False]
    told = json.loads((tmp_path / "front.json").read_text())
    assert [(one["file"], one.get("problem")) for one in told] == [
        (None, "it differs"),
        ("front_8.00x_b.tflite", None),
    ]


@pytest.mark.slow
def test_chief_and_workers_search_export_and_refuse_another_search(tmp_path):
    small_model().save(tmp_path / "mine.keras")
    images, labels = small_data(200)
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    flags = [
        f"--model={tmp_path / 'mine.keras'}",
        f"--data={tmp_path / 'mine.npz'}",
        "--budgets=6x,10x",
        "--epochs=3",
        "--trials=4",
    ]
    flags += [f"--out_dir={tmp_path / 'out'}", "--batch_size=16"]
    shared = {**os.environ, "KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}

    def start(name):
        environment = {**shared, "KERASTUNER_TUNER_ID": name}
        command = [sys.executable, "-m", "bmpq_tf.cli.tune", *flags]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    running = [start(name) for name in ("chief", "worker0", "worker1")]
    said = [process.communicate(timeout=600)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    told = json.loads((tmp_path / "out" / "front.json").read_text())
    assert told
    assert all(
        (tmp_path / "out" / point["file"]).stat().st_size == point["tflite_bytes"] for point in told
    )
    assert (tmp_path / "out" / "front.png").read_bytes()[:4] == b"\x89PNG"
    assert "The front, smallest first" in said[0]
    assert len(list((tmp_path / "out" / "search").glob("trial_*/model.keras"))) == 4
    # Alone, again: every trial is there, so there is nothing to train; another search may not go on
    # in this folder.
    again = subprocess.run(
        [sys.executable, "-m", "bmpq_tf.cli.tune", *flags],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Running Trial" not in again.stdout
    other = subprocess.run(
        [sys.executable, "-m", "bmpq_tf.cli.tune", *flags, "--epochs=4"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert other.returncode == 1
    assert "Received: epochs=4; it was started with epochs=3" in other.stderr
