"""A grid from its first cell to its last: what is recorded, resumed, passed over and refused."""

import dataclasses
import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest
from small_grid import BASE

from bmpq_research.experiments import compare as comparing
from bmpq_research.experiments import splits, tfmot_peer
from bmpq_research.experiments.grid import cells, read_grid
from bmpq_research.experiments.results import append_result, locked, read_results

pytest.importorskip("sklearn")
ROOT = pathlib.Path(__file__).parents[2]
PARTS = ("uniform3", "bmpq/size of uniform3", "bmpq/40x", "uniform2[learning_rate=1000000000.0]")


def tool(*arguments, ok=True):
    command = [sys.executable, str(ROOT / "tools" / "compare.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=ROOT)
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def here(monkeypatch):
    """Runs cells in this process, which is quicker than a new one for each."""

    def inline(cell, *arguments):
        comparing._run_and_append(cell, *arguments)
        return 0

    monkeypatch.setattr(comparing, "_in_a_process", inline)


def test_a_grid_goes_on_past_what_fails_and_looks_sizes_up(here, tmp_path):
    grid = cells(
        {
            **BASE,
            "grid": [
                {"methods": ["uniform3"]},
                {"methods": ["bmpq"], "budgets": ["size of uniform3", "40x", "size of bmpq/40x"]},
                {"methods": ["uniform2"], "learning_rate": 1e9},
                {"methods": ["float32"], "label_smoothing": 0.1},
            ],
        }
    )
    out = tmp_path / "results.jsonl"
    said = []
    (lost,) = comparing.compare(grid, out, verbose=0, say=said.append)
    assert (
        f"{lost}: not run, because it needs digits_cnn@0.25/digits/bmpq/40x/seed0, which came to "
        "nothing." in said
    )
    results = read_results(out)
    # How long it takes is told as soon as a cell has shown it.
    (first, *others) = [line for line in said if "cells are done" in line]
    assert first == f"0 of {len(grid)} cells are done; {grid[0].key}"
    assert all(
        re.fullmatch(r"\d of \d cells are done, about [\dhmins ]+ of work left; .*", line)
        for line in others
    )
    by_part = {cell.part: results[cell.key] for cell in grid if cell.key != lost}
    done, sized, infeasible, diverged = (
        by_part[part]
        for part in (
            "uniform3",
            "bmpq/size of uniform3",
            "bmpq/40x",
            "uniform2[learning_rate=1000000000.0]",
        )
    )
    assert done["status"] == sized["status"] == "done"
    assert set(done["accuracy"]) == {"validation", "test"}
    assert done["accuracy"] == done["tflite_accuracy"]
    assert all(0 < loss < 10 for loss in done["loss"].values())
    assert sorted(done["widths"].values()) == [3, 3, 3, 3, 8, 8]
    assert [epoch["epoch"] for epoch in done["epochs"]] == [0, 1]
    # Epochs keep five digits.
    seconds = sum(epoch["seconds"] for epoch in done["epochs"])
    assert done["train_seconds"] == pytest.approx(seconds, rel=1e-4)
    assert done["peak_memory_bytes"] > 1e8
    assert {"keras", "tensorflow", "bmpq_tf", "python"} <= set(done["versions"])
    assert sized["budget"] == f"{done['parameter_bits'] / 8:.3f} B"
    assert sized["parameter_bits"] <= done["parameter_bits"]
    assert [allocation["epoch"] for allocation in sized["allocations"]] == [1]
    assert (infeasible["status"], diverged["status"], diverged["epoch"]) == (
        "infeasible",
        "diverged",
        1,
    )
    assert "The smallest this model reaches" in infeasible["reason"]
    # Again: nothing is left to do, and no backup is left behind; nor a float model, which others
    # take for one of the plain recipe.
    lines = out.read_text()
    assert comparing.compare(grid, out, say=said.append) == [lost]
    assert out.read_text() == lines
    assert [path.name for path in (tmp_path / "results.jsonl.work").iterdir()] == ["locks"]


def test_a_method_from_float_starts_where_the_float_model_ended(here, tmp_path):
    blocks = [
        {"methods": ["float32"]},
        {"methods": ["bmpq_from_float", "bmpq"], "budgets": ["10x"], "learning_rate": 1e-6},
    ]
    assert (
        comparing.compare(cells({**BASE, "grid": blocks}), tmp_path / "results.jsonl", verbose=0)
        == []
    )
    results = read_results(tmp_path / "results.jsonl").values()
    losses = {
        result["config"]["method"]: [epoch["loss"] for epoch in result["epochs"]]
        for result in results
    }
    assert (
        losses["bmpq_from_float"][0]
        < losses["float32"][1]
        < losses["float32"][0]
        < losses["bmpq"][0]
    )


def test_cells_on_other_images_than_the_results_are_of_are_refused(
    here, tmp_path, monkeypatch, capsys
):
    first, *others = cells({**BASE, "grid": [{"methods": ["uniform3", "uniform2", "uniform4"]}]})
    out = tmp_path / "results.jsonl"
    comparing.compare([first], out, grid=[first, *others], verbose=0, say=str)
    (result,) = read_results(out).values()
    assert result["data"].startswith("1437 and 360 images, 10 classes, ")
    whole = splits.load_dataset("digits")
    lost = (whole.train[0][1:], whole.train[1][1:])
    monkeypatch.setattr(
        splits, "load_dataset", lambda *given, **named: dataclasses.replace(whole, train=lost)
    )
    with pytest.raises(SystemExit):
        comparing.compare([first, *others], out, verbose=0, say=str)
    said = capsys.readouterr().err
    assert (
        "The other results are of other images. Received: digits with 1436 and 360 images" in said
    )
    assert (
        f"they were run on {result['data']}. Give the --data_dir of then, or another --out." in said
    )


@pytest.mark.parametrize(("code", "ending"), [(-6, "SIGABRT"), (1, "exit status 1")])
def test_a_process_that_dies_costs_its_cell_and_how_it_ended_is_said(
    tmp_path, monkeypatch, code, ending
):
    monkeypatch.setattr(comparing, "_in_a_process", lambda *_: code)
    said = []
    (cell,) = cells({**BASE, "grid": [{"methods": ["uniform3"]}]})
    assert comparing.compare([cell], tmp_path / "results.jsonl", verbose=0, say=said.append) == [
        cell.key
    ]
    assert said[-1].startswith(f"{cell.key}: its process ended with {ending};")


def test_cells_without_their_data_set_are_told_of_once(tmp_path, monkeypatch, capsys):
    grid = cells(
        {
            **BASE,
            "grid": [
                {"methods": ["uniform3", "uniform2"], "datasets": ["tiny_imagenet", "digits"]}
            ],
        }
    )

    def process(cell, *arguments):
        if cell.config.dataset == "digits":
            return 1
        with pytest.raises(SystemExit) as ended:
            comparing._run_and_append(cell, *arguments)
        return ended.value.code

    monkeypatch.setattr(comparing, "_in_a_process", process)
    said = []
    assert len(comparing.compare(grid, tmp_path / "results.jsonl", verbose=0, say=said.append)) == 4
    assert capsys.readouterr().err.count("Tiny-ImageNet was not found. Looked for") == 1
    assert "tiny_imagenet is not there or not the same, see above: its 2 cells are not run." in said
    assert (
        len(
            [
                line
                for line in said
                if line.endswith("its process ended with exit status 1; see above.")
            ]
        )
        == 2
    )


def test_methods_that_are_not_installed_are_told_before_any_cell_runs(tmp_path, monkeypatch):
    grid = cells(
        {
            **BASE,
            "seeds": [0, 1],
            "grid": [
                {"methods": ["uniform3", "tfmot_int8"]},
                {"methods": ["bmpq"], "budgets": ["size of tfmot_int8"]},
            ],
        }
    )
    said, ran = [], []
    monkeypatch.setattr(tfmot_peer.importlib.util, "find_spec", lambda name: None)

    def process(cell, *arguments):
        ran.append(cell.key)
        append_result(
            tmp_path / "results.jsonl",
            {"cell": cell.key, "status": "done", "config": cell.settings, "seconds": 1.0},
        )
        return 0

    monkeypatch.setattr(comparing, "_in_a_process", process)
    lost = comparing.compare(grid, tmp_path / "results.jsonl", verbose=0, say=said.append)
    assert said[0] == (
        "tfmot_int8: tfmot is not installed. Install what the comparison with it needs: pip "
        "install '.[peers]'. Until then its 2 cells are not run."
    )
    assert sum("not installed" in line for line in said) == 1
    assert ran == [cell.key for cell in grid if cell.method == "uniform3"]
    assert lost == sorted(cell.key for cell in grid if cell.method != "uniform3")


def test_all_the_tests_together_run_every_method():
    (line,) = re.findall(r"^test-all:(.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert ".venv/.peers" in line.split()


def test_a_cell_that_another_process_has_is_left_to_it(here, tmp_path, monkeypatch):
    grid = cells({**BASE, "grid": [{"methods": ["uniform2"]}]})
    monkeypatch.setattr(
        comparing, "run_cell", lambda *arguments, **kwargs: pytest.fail("the cell is locked")
    )

    class WaitedError(Exception):
        pass

    def wait(seconds):
        raise WaitedError

    monkeypatch.setattr(comparing.time, "sleep", wait)
    with locked(comparing._lock(grid[0], tmp_path / "results.jsonl.work")) as mine:
        assert mine
        with pytest.raises(WaitedError):
            comparing.compare(grid, tmp_path / "results.jsonl", say=lambda line: None)


def test_a_cell_whose_need_nobody_runs_is_given_up_with_the_reason(here, tmp_path, monkeypatch):
    grid = cells(
        {
            **BASE,
            "grid": [
                {"methods": ["uniform3"]},
                {"methods": ["bmpq"], "budgets": ["size of uniform3"]},
            ],
        }
    )
    waited = []
    monkeypatch.setattr(comparing.time, "sleep", waited.append)
    said = []
    needed, sized = grid
    assert comparing.compare([sized], tmp_path / "results.jsonl", grid=grid, say=said.append) == [
        sized.key
    ]
    assert len(waited) == comparing._PATIENCE
    assert said == [
        f"{sized.key}: not run, because it needs {needed.key}, which has no result, was not "
        "chosen, and nobody is running."
    ]


@pytest.mark.slow
def test_the_tool_answers_bad_input_in_a_line(tmp_path):
    config = tmp_path / "grid.yaml"
    config.write_text("model: digits_cnn\ngrid: [{methods: [uniform2, hawq]}]")
    said = tool(f"--config={config}", f"--out={tmp_path / 'results.jsonl'}", ok=False)
    assert "error: Unknown method" in said
    assert "Traceback" not in said
    config.write_text("model: digits_cnn\ngrid: [{methods: [uniform2]}]")
    assert "There are no results to report. Received: --out=runs/grid.jsonl" in tool(
        f"--config={config}", f"--report={tmp_path}", ok=False
    )


@pytest.mark.slow
def test_smoke_runs_every_method_and_reports(tmp_path):
    config = ROOT / "examples" / "configs" / "smoke.yaml"
    has_tfmot = importlib.util.find_spec("tensorflow_model_optimization") is not None
    chosen = "" if has_tfmot else "--cells=^((?!tfmot).)*$"
    out = tmp_path / "smoke.jsonl"
    tool(f"--config={config}", f"--out={out}", "--verbose=0", *([chosen] if chosen else []))
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert {result["cell"] for result in results} == {
        cell.key for cell in read_grid(config) if has_tfmot or cell.method != "tfmot_int8"
    }
    assert all(result["status"] == "done" for result in results)
    # One seed of 200 images tells nothing of the methods; that all of them learned, it does.
    assert min(result["tflite_accuracy"]["test"] for result in results) > 0.85
    told = tool(
        f"--config={config}", f"--out={out}", f"--report={tmp_path / 'report'}", "--judge=test"
    )
    assert "| bmpq, 10x | 1 |" in told
    assert len(list((tmp_path / "report").glob("*.png"))) == 3
