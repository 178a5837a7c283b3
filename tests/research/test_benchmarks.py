"""The benchmark: what its figures mean, and, slowly, that ours is not slower than it may be."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

from bmpq_research.benchmarks.measure import (
    alternate,
    exponent,
    in_fresh_process,
    last_exponent,
    paired_ratio,
)
from bmpq_research.benchmarks.peers import environment, networks
from bmpq_research.benchmarks.peers.environment import PEERS, PeerUnavailableError, python_of
from bmpq_research.benchmarks.report import Result, markdown, measured

ROOT = pathlib.Path(__file__).parents[2]


def test_contestants_alternate_and_the_warm_up_is_not_timed():
    order = []
    times = alternate({name: lambda name=name: order.append(name) for name in "ab"}, rounds=2)
    assert "".join(order) == "ab" + "ab" + "ba"
    assert [len(values) for values in times.values()] == [2, 2]


def test_peers_alternate_as_ours_do(monkeypatch):
    """Their script runs where there is no bmpq_tf, so it has a copy of what times ours."""
    folder = ROOT / "tools" / "bmpq_research" / "benchmarks" / "peers"
    # What it sets when it is imported is taken back.
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    monkeypatch.setitem(sys.modules, "networks", networks)
    spec = importlib.util.spec_from_file_location("peers_train", folder / "train.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for rounds, limit in ((4, 60.0), (9, 0.0)):
        orders, counts = [], []
        for times in (alternate, script.alternate):
            order = []
            found = times(
                {name: lambda name=name, order=order: order.append(name) for name in "ab"},
                rounds,
                limit,
            )
            # The untimed round may go either way.
            orders.append("".join(order[2:]))
            counts.append([len(values) for values in found.values()])
        assert orders[0] == orders[1]
        assert counts[0] == counts[1]


def test_time_ends_the_rounds_but_never_before_three():
    assert [
        len(values) for values in alternate({"a": lambda: None}, rounds=9, seconds=0.0).values()
    ] == [3]


def test_ratios_are_of_pairs_so_that_a_slow_moment_counts_once():
    assert paired_ratio([1.0, 10.0, 1.0], [2.0, 20.0, 0.5]) == 0.5


def test_exponents():
    assert exponent([1, 10, 100], [2, 20, 200]) == pytest.approx(1)
    assert last_exponent([1, 10, 100], [2, 2, 200]) == pytest.approx(2)


def _hold(megabytes):
    return len(bytearray(b"x" * int(megabytes * 1e6)))


@pytest.mark.slow
def test_the_peak_of_a_fresh_process_is_its_own():
    result, peak, added = in_fresh_process(_hold, 200)
    assert result == 200e6
    assert 200 <= added <= 500
    assert peak >= added


def test_the_tables_are_markdown():
    page = markdown(
        [Result("Title", [{"a": 1.23456, "b": 1000}, {"a": 2.0, "c": "x"}], ("A note.",))],
        {"cores": 2},
    )
    assert "cores 2" in page
    assert page.splitlines()[2:] == [
        "### Title",
        "",
        "| a | b | c |",
        "| --- | --- | --- |",
        "| 1.235 | 1,000 |  |",
        "| 2 |  | x |",
        "",
        "A note.",
    ]


def test_a_peer_that_cannot_be_installed_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "bmpq_research.benchmarks.peers.environment._run",
        lambda command, seconds: (_ for _ in ()).throw(PeerUnavailableError("no index")),
    )
    monkeypatch.setattr(
        "bmpq_research.benchmarks.peers.environment.venv.create", lambda *args, **kwargs: None
    )
    for peer in PEERS:
        with pytest.raises(PeerUnavailableError, match="no "):
            python_of(peer, tmp_path)
        assert not (tmp_path / peer / "requirements.txt").exists()


def test_a_run_that_is_stopped_leaves_what_it_has(tmp_path):
    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(
            [("first", lambda: [Result("Done", [{"a": 1}])]), ("second", stopped)],
            {"cores": 2},
            tmp_path / "out",
        )
    assert "### Done" in (tmp_path / "out" / "benchmark.md").read_text()
    assert [
        result["title"]
        for result in json.loads((tmp_path / "out" / "benchmark.json").read_text())["results"]
    ] == ["Done"]


def test_a_peer_that_does_not_end_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "python_of", lambda peer, folder: sys.executable)
    monkeypatch.setattr(environment, "_LIMIT", 0.01)
    with pytest.raises(PeerUnavailableError, match="did not end within"):
        environment.train_in_turn("tfmot", tmp_path, "resnet20", 1, 1, 1, 1.0)


@pytest.mark.slow
@pytest.mark.timed
def test_no_ratio_of_the_quick_benchmark_is_under_four_fifths():
    command = [sys.executable, str(ROOT / "tools/benchmark.py"), "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    ratios = {
        name: ratio
        for result in json.loads(done.stdout)["results"]
        for name, ratio in result["ratios"].items()
    }
    assert sorted(ratios) == [
        "allocation, 1,000 kernels",
        *(
            f"training {name}{kind}"
            for name in ("mobilenet_v2", "resnet20", "vgg16")
            for kind in ("", ", 8-bit activations")
        ),
    ]
