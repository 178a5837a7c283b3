"""Bisection over budgets: what it finds, how it resumes, what it says of the time left."""

import io
import math

import pytest
from conftest import small_model
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bmpq_tf import Budget, quantize_model
from bmpq_tf.tuning.bisection import FULL, SHORT, found, next_run
from bmpq_tf.tuning.budget_grid import budget_grid
from bmpq_tf.tuning.goal import Goal

pytest.importorskip("keras_tuner")
from bmpq_tf.tuning.bisection_progress import BisectionProgress
from bmpq_tf.tuning.bisection_tuner import BisectionOracle, BisectionTuner

# Keras-tuner names a thread in a deprecated way.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
GOAL = Goal("accuracy", "max", True, 0.9, 1.0)


def searched(count: int, short_from: int, full_from: int) -> tuple[int | None, dict, dict]:
    """Bisects where budgets from these indices on are good enough."""
    short, full = {}, {}
    while (run := next_run(short, full, count)) is not None:
        ended = short if run.stage == SHORT else full
        assert run.index not in ended, "A run is made twice."
        ended[run.index] = run.index >= (short_from if run.stage == SHORT else full_from)
    return found(full), short, full


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_bisection_finds_the_smallest_that_is_good_enough(sizes):
    count, first = sizes
    index, short, full = searched(count, first, first)
    assert index == (first if first < count else None)
    assert len(short) <= math.ceil(math.log2(count + 1))
    assert len(full) == (first < count)


@given(
    st.integers(1, 200).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n))
    )
)
def test_one_that_does_not_hold_in_full_makes_way_for_larger_ones(sizes):
    count, short_from, full_from = sizes
    index, _, full = searched(count, short_from, full_from)
    wanted = max(short_from, full_from)
    assert index == (wanted if wanted < count else None)
    assert len(full) <= 2 * math.log2(count) + 2


class FakeRuns:
    """Instead of training: the accuracy of a budget is told."""

    def __init__(self, accuracies, stop_at=None):
        self.model, self.accuracies, self.stop_at = small_model(), accuracies, stop_at
        self.made = []

    def run(self, budget, epochs, callbacks, backup=None):
        self.made.append((budget.average_bits, epochs))
        if len(self.made) == self.stop_at:
            raise KeyboardInterrupt
        return self.accuracies[budget.average_bits], 32 / budget.average_bits, ()


def tuner_of(runs, folder, goal=GOAL):
    grid = [Budget(average_bits=bits) for bits in sorted(runs.accuracies)]
    oracle = BisectionOracle(goal, grid)
    progress = BisectionProgress(goal, 0)
    return BisectionTuner(oracle, runs, {SHORT: 2, FULL: 6}, folder, progress)


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4])
def test_a_search_that_was_stopped_makes_no_run_twice(stop_at, tmp_path):
    accuracies = {2.0: 0.5, 3.0: 0.8, 4.0: 0.895, 5.0: 0.9, 6.0: 0.9, 8.0: 0.91}
    stopped, after = FakeRuns(accuracies, stop_at), FakeRuns(accuracies)
    with pytest.raises(KeyboardInterrupt):
        tuner_of(stopped, tmp_path).find()
    tuner = tuner_of(after, tmp_path)
    tuner.find()
    whole = [(4.0, 2), (2.0, 2), (3.0, 2), (4.0, 6)]
    assert stopped.made[:-1] + after.made == whole
    assert found(tuner.bisection.met(FULL)) == 2
    assert [point.choices["budget"] for _, point in tuner.points()] == [
        "2 bits",
        "3 bits",
        "4 bits, in full",
        "4 bits",
    ]


def test_what_a_run_raises_comes_out_and_its_budget_is_tried_again(tmp_path):
    def fail(*_):
        raise OSError("the disk is full")

    runs = FakeRuns({2.0: 0.9, 4.0: 0.9})
    honest, runs.run = runs.run, fail
    with pytest.raises(OSError, match="the disk is full"):
        tuner_of(runs, tmp_path).find()
    runs.run = honest
    tuner_of(runs, tmp_path).find()
    assert runs.made == [(2.0, 2), (2.0, 6)]


def test_a_run_that_diverges_is_not_good_enough(tmp_path):
    runs = FakeRuns({2.0: 0.9, 4.0: 0.9, 8.0: 0.9})

    def run(budget, epochs, callbacks, backup=None):
        if budget.average_bits < 8:
            callbacks[0].on_epoch_end(0, {"loss": float("nan")})
        return 0.9, 4.0, ()

    runs.run = run
    tuner = tuner_of(runs, tmp_path)
    tuner.find()
    assert tuner.bisection.met(SHORT) == {1: False, 2: True}
    assert found(tuner.bisection.met(FULL)) == 2


def test_a_run_that_diverges_after_the_winner_leaves_no_model_of_it(tmp_path):
    # In full 2 and 3 bits fail, and 4 bits diverge when 5 were good enough.
    runs = FakeRuns({2.0: 0.9, 3.0: 0.9, 4.0: 0.9, 5.0: 0.9, 6.0: 0.9})
    short = runs.run

    def run(budget, epochs, callbacks, backup=None):
        value, compression, parts = short(budget, epochs, callbacks, backup)
        if epochs == 6 and budget.average_bits == 4:
            callbacks[0].on_epoch_end(0, {"loss": float("nan")})
        return 0.5 if epochs == 6 and budget.average_bits < 4 else value, compression, parts

    runs.run = run
    tuner = tuner_of(runs, tmp_path)
    tuner.find()
    assert [budget for budget, epochs in runs.made if epochs == 6][-1] == 4.0
    assert found(tuner.bisection.met(FULL)) == 3
    assert tuner.last is None


def test_the_default_budgets_reach_from_the_narrowest_widths_to_the_widest():
    model = quantize_model(small_model(), (2, 4, 8), pin=None)
    grid = budget_grid(model, None, 3)
    averages = [budget.average_bits for budget in grid]
    assert (averages[0], averages[-1], len(averages)) == (2.0, 8.0, 16)
    assert averages == sorted(averages)
    model.get_layer("hidden").trainable = False
    # A frozen kernel keeps its width: the least that is left of 2 bits.
    frozen = budget_grid(model, None, 3)
    assert grid[0].average_bits < frozen[0].average_bits < frozen[-1].average_bits == 8
    model.get_layer("hidden").trainable = True
    mixed = budget_grid(model, ["4x", "3 bits", Budget(compression=10)], 3)
    # 32 bits over 3 are more than 10 times fewer.
    assert [str(budget) for budget in mixed] == ["3 bits", "10x", "4x"]
    two = ["9 kB, 400 kB stored", "8 kB, 500 kB stored"]
    with pytest.raises(ValueError, match="each allows more"):
        budget_grid(model, two, 3)
    with pytest.raises(ValueError, match=r"allow the same. Received: (4x and 8 b|8 bits and 4x)"):
        budget_grid(model, ["4x", "8 bits"], 3)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_time_left_counts_all_that_may_follow(is_terminal):
    seconds = [0.0]
    screen = io.StringIO()
    console = Console(file=screen, width=200, highlight=False, force_terminal=is_terminal)
    progress = BisectionProgress(GOAL, 1, console, lambda: seconds[0])
    progress.begin({"budget": "4 bits", "stage": SHORT}, 10, 60)
    for epoch in range(3):
        seconds[0] += 6
        progress.epoch_ended(epoch)
    progress.end(0.895)
    progress.begin({"budget": "4 bits", "stage": FULL}, 30, 0)
    # Eight and sixty epochs of six seconds; nothing is said before ten have passed.
    between = "smallest budget: 4 bits: epoch 2 of 10; about 6 min 48 s left"
    assert screen.getvalue().splitlines() == [
        "smallest budget: 4 bits: 10 epochs",
        *([between] if is_terminal else []),
        "smallest budget: 4 bits: accuracy 89.50%, 0.50 points below float, good enough",
        "smallest budget: 4 bits in full: 30 epochs; about 3 min 0 s left",
    ]
