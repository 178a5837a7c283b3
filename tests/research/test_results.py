"""The results file: whole lines, whoever writes; results of another config are refused."""

import json
import multiprocessing

import pytest

from bmpq_research.experiments.grid import cells
from bmpq_research.experiments.results import append_result, check_results, locked, read_results


def grid(**shared):
    return cells(
        {"epochs": 4, "seeds": [0, 1], **shared, "grid": [{"methods": ["uniform2", "uniform3"]}]}
    )


def results_of(made):
    """As they come back from a file."""
    return json.loads(
        json.dumps({cell.key: {"cell": cell.key, "config": cell.settings} for cell in made})
    )


def test_lines_come_back_and_one_that_was_cut_short_is_written_over(tmp_path):
    path = tmp_path / "deep" / "results.jsonl"
    assert read_results(path) == {}
    append_result(path, {"cell": "a", "value": 1})
    with open(path, "a") as file:
        file.write('{"cell": "b", "val')
    assert list(read_results(path)) == ["a"]
    append_result(path, {"cell": "c", "value": 3})
    assert list(read_results(path)) == ["a", "c"]
    assert path.read_text().count("\n") == 2
    with open(path, "a") as file:
        file.write("nothing\n")
    with pytest.raises(ValueError, match="line 3"):
        read_results(path)


def _append_many(path, name, together):
    for number in range(40):
        together.wait()
        append_result(path, {"cell": f"{name}{number}", "text": name * 100_000})


def test_two_processes_append_whole_lines(tmp_path):
    path = tmp_path / "results.jsonl"
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(2)
    writers = [fork.Process(target=_append_many, args=(path, name, together)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_results(path)) == 80


def test_cells_may_be_added_but_not_changed_or_taken_away(tmp_path):
    made = grid()
    known = results_of(made[:2])
    check_results(known, made, "results.jsonl")
    check_results(known, grid(seeds=[0, 1, 2]), "results.jsonl")
    with pytest.raises(
        ValueError,
        match=r"Received: epochs=9; .*uniform2/seed0 was run with epochs=4.*another --out",
    ):
        check_results(known, grid(epochs=9), "results.jsonl")
    with pytest.raises(
        ValueError, match=r"Received: results of .*uniform2/seed0.*which the config does not have"
    ):
        check_results(known, grid(model="resnet20"), "results.jsonl")


def test_a_setting_that_was_added_since_was_at_its_default():
    made = grid()
    known = results_of(made)
    for result in known.values():
        del result["config"]["label_smoothing"]
    check_results(known, made, "results.jsonl")
    with pytest.raises(
        ValueError, match=r"Received: label_smoothing=0.1; .* was run with label_smoothing=0.0"
    ):
        check_results(known, grid(label_smoothing=0.1), "results.jsonl")


def test_a_lock_is_held_by_one(tmp_path):
    with locked(tmp_path / "lock") as mine:
        assert mine
        with locked(tmp_path / "lock") as theirs:
            assert not theirs
    with locked(tmp_path / "lock") as again:
        assert again


def test_a_result_keeps_what_pictures_and_tables_need_in_a_quarter_of_the_room(tmp_path):
    path = tmp_path / "results.jsonl"
    kernels = [f"stage{number}_conv/kernel" for number in range(20)]
    allocation = {
        "status": "optimal",
        "budget": {"compression": 12.0},
        "bits": dict.fromkeys(kernels, 4),
        "sensitivity": {**dict.fromkeys(kernels, 0.1234567890123456), kernels[0]: None},
        "enbg": dict.fromkeys(kernels, 0.001234567890123456),
    }
    result = {
        "cell": "a",
        "widths": dict.fromkeys(kernels, 4),
        "allocations": [{"epoch": epoch, **allocation} for epoch in range(7)],
        "epochs": [{"epoch": epoch, "loss": 1.2345678901234567} for epoch in range(10)],
    }
    append_result(path, result)
    told = read_results(path)["a"]
    assert told["widths"] == result["widths"]
    assert told["epochs"][-1] == {"epoch": 9, "loss": 1.2346}
    assert told["allocations"][6] == {
        **{name: value for name, value in allocation.items() if name != "enbg"},
        "epoch": 6,
        "sensitivity": {**dict.fromkeys(kernels, 0.12346), kernels[0]: None},
    }
    assert path.stat().st_size < len(json.dumps(result)) / 4
    path.write_text(json.dumps(result) + "\n")
    assert read_results(path)["a"] == result


def test_a_result_without_allocations_comes_back_as_it_was(tmp_path):
    path = tmp_path / "results.jsonl"
    result = {"cell": "a", "status": "infeasible", "allocations": [], "epochs": [], "kernels": 3}
    append_result(path, result)
    assert read_results(path) == {"a": result}
