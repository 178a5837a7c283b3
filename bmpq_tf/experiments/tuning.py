"""A search over budgets, candidates, learning rate and schedule for the accuracy-over-size front of one model, by keras-tuner.

keras-tuner spreads it over processes or machines by its own environment variables: KERASTUNER_TUNER_ID (`chief`, or any other name for a
worker), KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT; all need the same folder.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

from bmpq_tf import graph
from bmpq_tf.budget import InfeasibleBudgetError
from bmpq_tf.callbacks import BMPQCallback
from bmpq_tf.datasets import EpochCounter
from bmpq_tf.experiments.epoch_log import DivergedError, EpochWatch
from bmpq_tf.experiments.recipe import SCHEDULES, sgd
from bmpq_tf.export import ExportError, ExportReport, export_tflite
from bmpq_tf.export.convert import ConversionError
from bmpq_tf.files import replacing, write_text
from bmpq_tf.kernels import compression, model_kernels
from bmpq_tf.quantize import quantize_model

# Not GridSearchOracle: it does not save where it is, so that a search which was stopped would end there.
SEARCHES = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """A model and its data.

    Attributes:
        model: the float model with its first weights, a classifier that ends in logits or in a softmax.
        training: makes an epoch's batches of images and integer labels, for the counter that it is given.
        validation: images as the model takes them, and labels; accuracies are of these.
        granularity: of the scales, as `quantize_model` takes it.
    """

    model: keras.Model
    training: Callable[[EpochCounter], tf.data.Dataset]
    validation: tuple[np.ndarray, np.ndarray]
    granularity: str = "tensor"

    @property
    def from_logits(self) -> bool:
        """Whether the model ends in logits."""
        return not graph.ends_in_softmax(self.model)


@dataclasses.dataclass(frozen=True)
class Space:
    """What is searched over.

    Attributes:
        budgets: as `BMPQCallback` takes them.
        candidates: sets of widths.
        learning_rates: the least and the largest peak; drawn on a logarithmic scale.
        schedules: as `recipe.sgd` takes them.
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
            raise ValueError(f"There is nothing to search in. Received: {self}. Give budgets, candidates and schedules.")
        if not 0 < low <= high:
            raise ValueError(f"Learning rates are two positive numbers, the smaller one first. Received: learning_rates={self.learning_rates}.")
        if unknown := sorted(set(self.schedules) - set(SCHEDULES)):
            raise ValueError(f"Unknown schedule. Received: schedules={unknown}. Known: {', '.join(SCHEDULES)}.")

    def check(self, model: keras.Model) -> None:
        """Raises `InfeasibleBudgetError`, before any training, if no set of candidates meets one of the budgets."""
        for budget in self.budgets:
            refused = []
            for widths in self.candidates:
                try:
                    BMPQCallback(budget, verbose=0).check(quantize_model(model, widths), self.epochs)
                except InfeasibleBudgetError as error:
                    refused.append(error)
            if len(refused) == len(self.candidates):
                raise refused[0]


@dataclasses.dataclass(frozen=True)
class Point:
    """One finished trial.

    Attributes:
        trial: its name.
        accuracy: share of the validation images.
        compression: how many times fewer parameter bits than float32.
        choices: what the search chose.
        folder: where its `model.keras` is.
    """

    trial: str
    accuracy: float
    compression: float
    choices: dict[str, Any]
    folder: pathlib.Path


class FrontTuner(keras_tuner.Tuner):
    """Trains the trials of a search; its two objectives are accuracy, and size as a share of the float model's."""

    def __init__(self, problem: Problem, space: Space, search: str, trials: int, seed: int, folder: pathlib.Path):
        objectives = [keras_tuner.Objective("accuracy", "max"), keras_tuner.Objective("size", "min")]
        # Budgets that some candidates cannot meet fail by themselves, in rows too.
        oracle = SEARCHES[search](objective=objectives, max_trials=trials, seed=seed, max_consecutive_failed_trials=trials + 1)
        self.problem, self.space, self.seed = problem, space, seed
        super().__init__(oracle, self._declare, directory=str(folder), project_name="search")
        # keras-tuner goes on only where the same process name did; a chief's search may be looked at alone.
        is_worker = "chief" not in os.environ.get("KERASTUNER_TUNER_ID", "chief")
        if not is_worker and not oracle.trials and (folder / "search" / "oracle.json").exists():
            oracle.reload()

    def _declare(self, chosen: keras_tuner.HyperParameters) -> keras.Model:
        """Names the choices; keras-tuner finds them by calling this."""
        chosen.Choice("budget", list(self.space.budgets))
        chosen.Choice("candidate_bits", [",".join(map(str, widths)) for widths in self.space.candidates])
        low, high = self.space.learning_rates
        if low < high:
            chosen.Float("learning_rate", low, high, sampling="log")
        else:
            chosen.Fixed("learning_rate", low)
        chosen.Choice("schedule", list(self.space.schedules))
        return self.problem.model

    def run_trial(self, trial, *_, **__):
        """Trains one choice under its budget and keeps the model; one that cannot be trained fails, and the search goes on."""
        chosen = trial.hyperparameters.values
        try:
            model = train_choice(self.problem, chosen, self.space.epochs, self.seed)
        except (DivergedError, InfeasibleBudgetError) as error:
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        with replacing(pathlib.Path(self.get_trial_dir(trial.trial_id)) / "model.keras") as temporary:
            model.save(temporary)
        accuracy, size = _accuracy(model, self.problem.validation), 1 / compression(model_kernels(model))
        # keras-tuner asks of a dictionary that it holds the sum of the objectives too, under its name for that.
        return {"accuracy": accuracy, "size": size, self.oracle.objective.name: size - accuracy}

    def points(self) -> list[Point]:
        """Returns every trial that was finished, the smallest first."""
        found = []
        for trial in self.oracle.trials.values():
            if trial.status == "COMPLETED":
                folder = pathlib.Path(self.get_trial_dir(trial.trial_id))
                values = [float(trial.metrics.get_best_value(name)) for name in ("accuracy", "size")]
                found.append(Point(trial.trial_id, values[0], 1 / values[1], dict(trial.hyperparameters.values), folder))
        return sorted(found, key=lambda point: -point.compression)


def train_choice(problem: Problem, chosen: dict[str, Any], epochs: int, seed: int) -> keras.Model:
    """Trains the problem's model from its first weights as a search chose.

    Raises:
        DivergedError, InfeasibleBudgetError: the choice is no good.
    """
    keras.utils.set_random_seed(seed)
    widths = tuple(int(width) for width in chosen["candidate_bits"].split(","))
    model = quantize_model(problem.model, widths, granularity=problem.granularity)
    counter = EpochCounter()
    batches = problem.training(counter)
    steps = len(batches)
    optimizer = sgd(
        model,
        learning_rate=chosen["learning_rate"],
        steps=steps * epochs,
        warmup_steps=min(steps, steps * epochs // 10),
        schedule=chosen["schedule"],
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=problem.from_logits)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    callbacks = [BMPQCallback(chosen["budget"], verbose=0), EpochWatch(), counter]
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)
    return model


def front(points: Sequence[Point]) -> list[Point]:
    """Returns the points that no other one beats in both accuracy and size, the smallest first."""
    best, kept = -1.0, []
    for point in sorted(points, key=lambda point: (-point.compression, -point.accuracy)):
        if point.accuracy > best:
            kept.append(point)
            best = point.accuracy
    return kept


def export_front(points: Sequence[Point], problem: Problem, folder: pathlib.Path) -> list[ExportReport | None]:
    """Exports the models of a front as packed `.tflite` files, checked on validation images, and writes `front.json`.

    The files of an earlier front in the folder, before the search was extended, are removed. A point whose export is refused has no file,
    and a `problem` in `front.json`.

    Returns:
        A report for each point; `None` where there is no file.
    """
    reports, told = [], []
    for point in points:
        model = keras.models.load_model(point.folder / "model.keras", compile=False)
        choices = {"trial": point.trial, "accuracy": point.accuracy, "compression": point.compression, **point.choices}
        # The trial, too: two points may round to one compression.
        path = folder / f"front_{point.compression:.2f}x_{point.trial}.tflite"
        try:
            reports.append(export_tflite(model, path, verify_with=problem.validation[0][:500], overwrite=True))
            told.append({**choices, "file": path.name, "tflite_bytes": reports[-1].tflite_bytes})
        except (ExportError, ConversionError) as error:
            reports.append(None)
            told.append({**choices, "file": None, "problem": str(error)})
    write_text(folder / "front.json", json.dumps(told, indent=1))
    for earlier in {path.name for path in folder.glob("front_*.tflite")} - {one["file"] for one in told}:
        (folder / earlier).unlink()
    return reports


def plot_front(points: Sequence[Point], path: pathlib.Path, title: str) -> None:
    """Draws every trial, by budget, and the front through the best ones, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for budget in dict.fromkeys(point.choices["budget"] for point in points):
        of_budget = [point for point in points if point.choices["budget"] == budget]
        axes.scatter([32 / point.compression for point in of_budget], [100 * point.accuracy for point in of_budget], s=28, label=budget)
    best = front(points)
    axes.step([32 / point.compression for point in best], [100 * point.accuracy for point in best], where="post", color="0.4", label="front")
    axes.set_xlabel("parameter bits a weight")
    axes.set_ylabel("accuracy on the validation images, %")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, title="budget", title_fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _accuracy(model: keras.Model, validation: tuple[np.ndarray, np.ndarray]) -> float:
    images, labels = validation
    return float(np.mean(model.predict(images, batch_size=250, verbose=0).argmax(-1) == labels))
