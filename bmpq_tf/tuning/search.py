"""A search over budgets, candidates, learning rate and schedule for the accuracy-over-size front of
one model, by keras-tuner.

keras-tuner spreads it over processes or machines by its own environment variables:
KERASTUNER_TUNER_ID (`chief`, or any other name for a worker), KERASTUNER_ORACLE_IP and
KERASTUNER_ORACLE_PORT; all need the same folder.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

from bmpq_tf.allocation.budget import InfeasibleBudgetError
from bmpq_tf.allocation.solver import AllocationError
from bmpq_tf.conversion.config import QuantizationConfig
from bmpq_tf.conversion.quantize import quantize_model
from bmpq_tf.files import replacing
from bmpq_tf.model import graph_view
from bmpq_tf.model.kernels import compression, model_kernels
from bmpq_tf.training.callback import BMPQCallback
from bmpq_tf.training.epochs_shown import epochs_shown
from bmpq_tf.tuning.front import Point
from bmpq_tf.tuning.recipe import SCHEDULES, learning_rate, sgd
from bmpq_tf.tuning.search_progress import SearchProgress

# Not GridSearchOracle: it does not save where it is, so that a search which was stopped would end
# there.
SEARCHES = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """A model and its data.

    Attributes:
        model: the float model with its first weights, a classifier that ends in logits or in a
            softmax.
        training: makes the batches of images and integer labels of a trial, and the callbacks that
            they need.
        validation: images as the model takes them, and labels; accuracies are of these.
        granularity: of the scales, as `quantize_model` takes it.
    """

    model: keras.Model
    training: Callable[[], tuple[tf.data.Dataset, list[keras.callbacks.Callback]]]
    validation: tuple[np.ndarray, np.ndarray]
    granularity: str = "tensor"

    @property
    def from_logits(self) -> bool:
        """Whether the model ends in logits."""
        return not graph_view.ends_in_softmax(self.model)

    def compile(
        self, model: keras.Model, steps: int, epochs: int, peak: float, schedule: str
    ) -> None:
        """Compiles a model for a run of so many steps an epoch, as every trial is."""
        warmup = min(steps, steps * epochs // 10)
        rate = learning_rate(peak, steps * epochs, warmup, schedule)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=self.from_logits)
        model.compile(sgd(rate), loss, metrics=["accuracy"], jit_compile=False)  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(frozen=True)
class Space:
    """What is searched over.

    Attributes:
        budgets: as `BMPQCallback` takes them.
        candidates: sets of widths.
        learning_rates: the least and the largest peak; drawn on a logarithmic scale.
        schedules: as `recipe.learning_rate` takes them.
        epochs: of each trial.

    Raises:
        ValueError: something is empty, not positive or not known.
    """

    budgets: Sequence[str]
    candidates: Sequence[tuple[int, ...]]
    learning_rates: tuple[float, float]
    schedules: Sequence[str]
    epochs: int

    def __post_init__(self):
        low, high = self.learning_rates
        if not self.budgets or not self.candidates or not self.schedules:
            raise ValueError(
                f"There is nothing to search in. Received: {self}. Give budgets, candidates and "
                "schedules."
            )
        if not 0 < low <= high:
            raise ValueError(
                "Learning rates are two positive numbers, the smaller one first. Received: "
                f"learning_rates={self.learning_rates}."
            )
        if unknown := sorted(set(self.schedules) - set(SCHEDULES)):
            raise ValueError(
                f"Unknown schedule. Received: schedules={unknown}. Known: {', '.join(SCHEDULES)}."
            )

    def check(self, model: keras.Model) -> None:
        """Raises `InfeasibleBudgetError`, before any training, if no set of candidates meets one of
        the budgets.
        """
        for budget in self.budgets:
            refused = []
            for widths in self.candidates:
                try:
                    BMPQCallback(budget, verbose=0).check(
                        quantize_model(model, widths), self.epochs
                    )
                except InfeasibleBudgetError as error:
                    refused.append(error)
            if len(refused) == len(self.candidates):
                raise refused[0]


def run_search(tuner: Any) -> None:
    """Runs a tuner's search, or goes on with it.

    Raises:
        Exception: what a trial raised that is of no choice, as the tuner's `error` has it;
            keras-tuner would hide it in the trial's message.
    """
    try:
        tuner.search(verbose=0)
    except keras_tuner.errors.FatalError:
        if tuner.error is None:
            raise
        raise tuner.error from None


class FrontTuner(keras_tuner.Tuner):
    """Trains the trials of a search.

    Its two objectives are accuracy, and size as a share of the float model's.
    """

    def __init__(
        self,
        problem: Problem,
        space: Space,
        search: str,
        trials: int,
        seed: int,
        folder: pathlib.Path,
        verbose: int = 1,
    ):
        objectives = [
            keras_tuner.Objective("accuracy", "max"),
            keras_tuner.Objective("size", "min"),
        ]
        # Budgets that some candidates cannot meet fail by themselves, in rows too.
        oracle = SEARCHES[search](
            objective=objectives,
            max_trials=trials,
            seed=seed,
            max_consecutive_failed_trials=trials + 1,
        )
        self.problem, self.space, self.seed = problem, space, seed
        self.error: Exception | None = None
        self._told = SearchProgress(trials, verbose)
        super().__init__(oracle, self._declare, directory=str(folder), project_name="search")
        # keras-tuner goes on only where the same process name did; a chief's search may be looked
        # at alone.
        is_worker = "chief" not in os.environ.get("KERASTUNER_TUNER_ID", "chief")
        if not is_worker and not oracle.trials and (folder / "search" / "oracle.json").exists():
            oracle.reload()

    def _declare(self, chosen: keras_tuner.HyperParameters) -> keras.Model:
        """Names the choices; keras-tuner finds them by calling this."""
        chosen.Choice("budget", list(self.space.budgets))
        chosen.Choice(
            "candidate_bits", [",".join(map(str, widths)) for widths in self.space.candidates]
        )
        low, high = self.space.learning_rates
        if low < high:
            chosen.Float("learning_rate", low, high, sampling="log")
        else:
            chosen.Fixed("learning_rate", low)
        chosen.Choice("schedule", list(self.space.schedules))
        return self.problem.model

    def run_trial(self, trial, *_, **__):
        """Trains one choice under its budget and keeps the model.

        One that cannot be trained fails, and the search goes on.
        """
        chosen = trial.hyperparameters.values
        # keras-tuner counts them so; a worker does not see the others' trials.
        self._told.begin(int(trial.trial_id) + 1, chosen)
        try:
            accuracy, size = self._trained(trial.trial_id, chosen)
        except (AllocationError, DivergedError, InfeasibleBudgetError) as error:
            self._told.failed(str(error))
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except Exception as error:
            # Of all choices, most likely: keras-tuner would try them, and never again.
            self._told.failed(f"{type(error).__name__}: {error}")
            # A chief would wait for a worker that ends so.
            if "KERASTUNER_TUNER_ID" in os.environ:
                raise
            self.error = error
            raise keras_tuner.errors.FatalError(str(error)) from error
        self._told.end(accuracy, 1 / size)
        # keras-tuner asks of a dictionary that it holds the sum of the objectives too, under its
        # name for that.
        return {"accuracy": accuracy, "size": size, self.oracle.objective.name: size - accuracy}

    def _trained(self, trial_id: str, chosen: dict[str, Any]) -> tuple[float, float]:
        """Trains and keeps the model of a choice; returns its accuracy and share of the bits."""
        model = train_choice(self.problem, chosen, self.space.epochs, self.seed, self._told.verbose)
        with replacing(pathlib.Path(self.get_trial_dir(trial_id)) / "model.keras") as temporary:
            model.save(temporary)
        accuracy = _accuracy(model, self.problem.validation)
        return accuracy, 1 / compression(model_kernels(model))

    def points(self) -> list[Point]:
        """Returns every trial that was finished, the smallest first."""
        found = []
        for trial in self.oracle.trials.values():
            if trial.status == "COMPLETED":
                folder = pathlib.Path(self.get_trial_dir(trial.trial_id))
                values = [
                    float(trial.metrics.get_best_value(name)) for name in ("accuracy", "size")
                ]
                found.append(
                    Point(
                        trial.trial_id,
                        values[0],
                        1 / values[1],
                        dict(trial.hyperparameters.values),
                        folder,
                    )
                )
        return sorted(found, key=lambda point: -point.compression)


def train_choice(
    problem: Problem, chosen: dict[str, Any], epochs: int, seed: int, verbose: int = 0
) -> keras.Model:
    """Trains the problem's model from its first weights as a search chose.

    Raises:
        AllocationError, DivergedError, InfeasibleBudgetError: the choice is no good.
    """
    keras.utils.set_random_seed(seed)
    widths = tuple(int(width) for width in chosen["candidate_bits"].split(","))
    model = quantize_model(
        problem.model, widths, config=QuantizationConfig(granularity=problem.granularity)
    )
    batches, callbacks = problem.training()
    problem.compile(model, len(batches), epochs, chosen["learning_rate"], chosen["schedule"])
    ends = keras.callbacks.LambdaCallback(on_epoch_end=check_finite)
    under = BMPQCallback(chosen["budget"], verbose=0)
    with epochs_shown(f"Training under {chosen['budget']}", verbose) as epochs_done:
        model.fit(
            batches,
            epochs=epochs,
            shuffle=False,
            verbose=0,  # pyright: ignore[reportArgumentType]
            callbacks=[
                under,
                ends,
                epochs_done,
                *callbacks,
            ],
        )
    if not under.is_within_budget:
        raise AllocationError(f"Training ended over {chosen['budget']}: no widths found in time.")
    return model


class DivergedError(RuntimeError):
    """The training loss of a trial stopped being a finite number."""


def check_finite(epoch: int, logs: dict[str, float]) -> None:
    """Raises `DivergedError` where the loss of an epoch is no finite number."""
    if not np.isfinite(logs["loss"]):
        raise DivergedError(f"Training diverged: the loss of epoch {epoch + 1} is {logs['loss']}.")


def _accuracy(model: keras.Model, validation: tuple[np.ndarray, np.ndarray]) -> float:
    images, labels = validation
    return float(np.mean(model.predict(images, batch_size=250, verbose=0).argmax(-1) == labels))  # pyright: ignore[reportArgumentType]
