"""Bisection as an oracle of keras-tuner, which stores the trials, and the tuner that trains."""

import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import keras
import keras_tuner

from bmpq_tf.allocation.budget import Budget
from bmpq_tf.files import replacing, write_text
from bmpq_tf.tuning.bisection import FULL, SHORT, Run, next_run, short_runs_left
from bmpq_tf.tuning.bisection_progress import BisectionProgress
from bmpq_tf.tuning.front import Point
from bmpq_tf.tuning.goal import Goal
from bmpq_tf.tuning.search import DivergedError, check_finite, run_search
from bmpq_tf.tuning.shared_runs import SharedRuns

PROJECT = "bisection"
_ERROR = "standard_error_of_the_drop"
_NUMBERS, _MODEL = "numbers.json", "model.keras"


class BisectionOracle(keras_tuner.Oracle):
    """Gives the next run of a bisection; all that it goes by are the trials that are stored.

    Args:
        goal: what is good enough.
        budgets: the smallest first.
    """

    def __init__(self, goal: Goal, budgets: Sequence[Budget]):
        # A run that diverges does not meet the tolerance; it is no reason to end the search.
        super().__init__(
            objective=keras_tuner.Objective(goal.metric, goal.direction),
            max_consecutive_failed_trials=3 * len(budgets),
        )
        self.goal, self.budgets = goal, budgets

    def met(self, stage: str) -> dict[int, bool]:
        """Returns which budgets' runs of a stage have ended, and whether they met the tolerance."""
        ended = {}
        for trial in self.trials.values():
            run = run_of(trial)
            if run.stage == stage and trial.status in ("COMPLETED", "FAILED"):
                done = trial.status == "COMPLETED"
                ended[run.index] = done and self.goal.is_met(
                    self.value(trial), self.value(trial, _ERROR)
                )
        return ended

    def value(self, trial, name: str | None = None) -> float:
        """Returns the metric, or another number, of a trial that is complete."""
        return float(trial.metrics.get_best_value(name or self.goal.metric))

    def populate_space(self, trial_id):
        run = next_run(self.met(SHORT), self.met(FULL), len(self.budgets))
        if run is None:
            return {"status": "STOPPED", "values": None}
        values = {"stage": run.stage, "index": run.index, "budget": str(self.budgets[run.index])}
        return {"status": "RUNNING", "values": values}


class BisectionTuner(keras_tuner.Tuner):
    """Trains the runs of a bisection.

    Attributes:
        last: the run that the model was trained by last, if it ended well and in this process.

    Args:
        oracle: which chooses them.
        runs: what trains.
        epochs: of a run, by stage.
        folder: where the trials are stored.
        progress: where it is told how far the search is.
    """

    def __init__(
        self,
        oracle: BisectionOracle,
        runs: SharedRuns,
        epochs: dict[str, int],
        folder: pathlib.Path,
        progress: BisectionProgress,
    ):
        self.bisection, self.runs, self.epochs, self.told = oracle, runs, epochs, progress
        self.error: Exception | None = None
        self.last: Run | None = None
        super().__init__(oracle, lambda _: runs.model, directory=str(folder), project_name=PROJECT)
        # keras-tuner goes on only where a trial has ended.
        if not oracle.trials and (folder / PROJECT / "oracle.json").exists():
            oracle.reload()

    def find(self) -> None:
        """Trains until nothing is left to find out.

        Raises:
            Exception: as `run_search`.
        """
        run_search(self)
        # The oracle's file was written before its last trial had ended.
        self.save()

    def run_trial(self, trial, *_, **__):
        """Trains under one budget; a run in full keeps its model, and goes on after a kill."""
        run = run_of(trial)
        # The model is this run's from here on, however it ends.
        self.last = None
        folder = pathlib.Path(self.get_trial_dir(trial.trial_id))
        budget, epochs = self.bisection.budgets[run.index], self.epochs[run.stage]
        self.told.begin(trial.hyperparameters.values, epochs, self._epochs_after(run))
        callbacks: list[Any] = [
            keras.callbacks.LambdaCallback(on_epoch_end=check_finite),
            keras.callbacks.LambdaCallback(on_epoch_end=self.told.epoch_ended),
        ]
        backup = folder / "backup" if run.stage == FULL else None
        try:
            value, compression, parts = self.runs.run(budget, epochs, callbacks, backup)
            if backup:
                with replacing(folder / _MODEL) as temporary:
                    self.runs.model.save(temporary)
                shutil.rmtree(backup, ignore_errors=True)
            write_text(folder / _NUMBERS, json.dumps({"compression": compression}))
        except DivergedError as error:
            self.told.diverged()
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except Exception as error:
            self.error = error
            raise keras_tuner.errors.FatalError(str(error)) from error
        self.last = run
        error = self.bisection.goal.error(parts)
        self.told.end(value, error)
        return {self.bisection.goal.metric: value, _ERROR: error}

    def _epochs_after(self, run: Run) -> int:
        """How many epochs may follow this run."""
        if run.stage == FULL:
            return 0
        left = short_runs_left(self.bisection.met(SHORT), len(self.bisection.budgets)) - 1
        return left * self.epochs[SHORT] + self.epochs[FULL]

    def points(self, stage: str | None = None) -> list[tuple[Run, Point]]:
        """Returns every run that ended, of one stage or of both, the smallest budget first."""
        sign = 1 if self.bisection.goal.direction == "max" else -1
        told = []
        for trial in self.bisection.trials.values():
            run, values = run_of(trial), trial.hyperparameters.values
            if trial.status != "COMPLETED" or stage not in (None, run.stage):
                continue
            folder = pathlib.Path(self.get_trial_dir(trial.trial_id))
            compression = json.loads((folder / _NUMBERS).read_text())["compression"]
            name = values["budget"] + (", in full" if run.stage == FULL else "")
            choices = {**values, "budget": name, "error": self.bisection.value(trial, _ERROR)}
            score = sign * self.bisection.value(trial)
            told.append((run, Point(trial.trial_id, score, compression, choices, folder)))
        return sorted(told, key=lambda one: (one[0].index, one[0].stage))


def run_of(trial) -> Run:
    """Returns which run a trial is."""
    values = trial.hyperparameters.values
    return Run(values["stage"], values["index"])
