"""Several replicas and several processes measure and decide as one device that gets the same
mini-batches.
"""

import json
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled, small_model

from bmpq_tf import AllocationError, quantize_model
from bmpq_tf.allocation.kernel import Kernel
from bmpq_tf.allocation.solver import Solution
from bmpq_tf.model.kernels import model_kernels
from bmpq_tf.training import distribution

pytestmark = [pytest.mark.apart, pytest.mark.slow]

SCRIPT = pathlib.Path(__file__).parent / "replicas.py"


def run_together(*commands) -> None:
    """Runs `replicas.py` once for each command, all at the same time."""
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), *map(str, c)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for c in commands
    ]
    try:
        for process in running:
            printed, _ = process.communicate(timeout=400)
            assert process.returncode == 0, printed.decode()[-3000:]
    finally:
        for process in running:
            process.kill()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    out = tmp_path_factory.mktemp("mirrored") / "out"
    run_together(("mirrored", out))
    return json.loads(out.with_suffix(".json").read_text())


@pytest.mark.parametrize(("policy", "rtol"), [("float32", 1e-4), ("mixed_float16", 5e-2)])
def test_two_replicas_measure_and_decide_as_one_device_with_their_shards_as_mini_batches(
    replicas, policy, rtol
):
    two, one = replicas[f"{policy} two"], replicas["float32 one"]
    for name, expected in one["sums"].items():
        np.testing.assert_allclose(two["sums"][name], expected, rtol=rtol, err_msg=name)
    assert two["sums"]["hidden/kernel uses_seen"] == two["sums"]["hidden/kernel uses_finite"] == 4
    assert len(two["history"]) == 2
    for decided, expected in zip(two["history"], one["history"], strict=True):
        assert decided["bits"] == expected["bits"]
        assert decided["sensitivity"] == pytest.approx(expected["sensitivity"], rel=rtol)
        assert decided["enbg"] == pytest.approx(expected["enbg"], rel=rtol)


def test_a_file_keeps_the_sums_whether_loaded_for_one_device_or_for_two(replicas):
    assert replicas["saved"] == replicas["float32 two"]["sums"]
    for loaded in ("loaded alone", "loaded in scope"):
        assert replicas[loaded] == replicas["saved"]
    assert not any(np.any(value) for value in replicas["reset"].values())


def test_replicas_round_activations_in_one_range(replicas):
    clips, zero_points = zip(*replicas["first_ranges"], strict=True)
    assert all(clips)
    assert all(zero_point == round(zero_point) for zero_point in zero_points)
    assert any(zero_points)


def test_two_processes_end_as_one_with_both_shards(tmp_path):
    ports = free_ports(2)
    run_together(
        ("one_process", tmp_path / "one"),
        *(("worker", tmp_path / f"worker{index}", index, *ports) for index in (0, 1)),
    )
    one, *workers = (
        json.loads((tmp_path / f"{name}.json").read_text())
        for name in ("one", "worker0", "worker1")
    )
    weights, *theirs = (np.load(tmp_path / f"{name}.npz") for name in ("one", "worker0", "worker1"))
    assert [worker["solved"] for worker in workers] == [2, 0]
    for worker, values in zip(workers, theirs, strict=True):
        assert [decided["bits"] for decided in worker["history"]] == [
            decided["bits"] for decided in one["history"]
        ]
        for name, expected in one["sums"].items():
            np.testing.assert_allclose(worker["sums"][name], expected, rtol=1e-4, err_msg=name)
        for name, log in one["logs"].items():
            np.testing.assert_allclose(worker["logs"][name], log, rtol=1e-4, err_msg=name)
        for name in weights:
            np.testing.assert_allclose(
                values[name], weights[name], rtol=1e-4, atol=1e-6, err_msg=name
            )
            np.testing.assert_array_equal(values[name], theirs[0][name], err_msg=name)
    for index in (0, 1):
        loaded = keras.models.load_model(tmp_path / f"worker{index}.keras")
        assert {state.kernel.path: state.bits for state in model_kernels(loaded)} == one["history"][
            -1
        ]["bits"]


class TestOneWorkerOfTwo:
    """The parts of `bmpq_tf.training.distribution`, in one process that takes itself for one of
    two.
    """

    kernels = (Kernel("a", 9, (2, 4)), Kernel("b", 9, (2, 8)))
    solution = Solution({"a": 4, "b": 2}, "kept", 1 / 3, 0.25, 0.5)

    @pytest.fixture
    def worker(self, monkeypatch):
        """Makes this process the chief or not; broadcasting gives what the chief said."""

        def broadcast(values, told):
            sent.append(values)
            return np.float64(values if told is None else told)

        def become(chief: bool, told=None):
            monkeypatch.setattr(distribution, "has_workers", lambda strategy: True)
            monkeypatch.setattr(distribution, "is_chief", lambda strategy: chief)
            monkeypatch.setattr(
                distribution, "_broadcast", lambda strategy, values: broadcast(values, told)
            )
            return sent

        sent = []
        return become

    def solve(self):
        return self.solution

    def fail(self):
        raise AllocationError("no answer in time")

    def test_the_others_get_the_chiefs_answer_without_solving(self, worker):
        sent = worker(True)
        assert distribution.solved_by_chief(None, self.kernels, self.solve) == self.solution
        worker(False, sent[0])
        assert distribution.solved_by_chief(None, self.kernels, self.fail) == self.solution

    def test_the_others_do_not_wait_for_a_chief_that_failed(self, worker):
        sent = worker(True)
        with pytest.raises(AllocationError, match="no answer in time"):
            distribution.solved_by_chief(None, self.kernels, self.fail)
        worker(False, sent[0])
        with pytest.raises(AllocationError, match="The chief found no assignment"):
            distribution.solved_by_chief(None, self.kernels, self.solve)

    def test_another_keras_is_named(self, worker):
        class Other(keras.Model):
            def _maybe_symbolic_build(self, data=None):
                pass

        worker(True)
        with pytest.raises(RuntimeError, match=r"Keras 3\..* in another way than Keras 3.15"):
            distribution.prepare_for_workers(Other())


def test_a_single_process_is_left_as_it_is():
    model = compiled(quantize_model(small_model()))
    before = dict(vars(model))
    assert distribution.prepare_for_workers(model) is model
    assert vars(model) == before
    assert not distribution.has_workers(tf.distribute.get_strategy())
    assert distribution.is_chief(tf.distribute.get_strategy())
