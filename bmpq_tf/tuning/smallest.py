"""`smallest_budget`: the smallest model that is good enough."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.allocation.budget import Budget
from bmpq_tf.conversion.config import QuantizationConfig
from bmpq_tf.conversion.quantize import quantize_model
from bmpq_tf.export.pipeline import export_tflite
from bmpq_tf.export.report import ExportReport
from bmpq_tf.files import write_text
from bmpq_tf.model import keras_graph
from bmpq_tf.reporting.report import write_report
from bmpq_tf.reporting.sizes import FLOAT, KERAS
from bmpq_tf.tuning import search_checks, search_data, search_settings
from bmpq_tf.tuning.bisection import FULL, SHORT, Run, found
from bmpq_tf.tuning.bisection_progress import BisectionProgress
from bmpq_tf.tuning.bisection_report import none_is_good_enough, plot
from bmpq_tf.tuning.budget_grid import budget_grid
from bmpq_tf.tuning.float_run import FloatRun
from bmpq_tf.tuning.goal import Goal
from bmpq_tf.tuning.shared_runs import SharedRuns

if TYPE_CHECKING:
    from bmpq_tf.tuning.bisection_tuner import BisectionTuner


@dataclasses.dataclass(frozen=True)
class SmallestBudget:
    """What `smallest_budget` found; printed, that and the table of its file.

    Attributes:
        budget: the smallest that met the tolerance.
        model: trained in full under it.
        report: of its file.
        metric: what it was judged by.
        value: of the model, on the validation data.
        float_value: of the float model, on the same.
        drop: how much worse that is: in points of a metric from 0 to 1, in the metric's own unit
            otherwise; negative where the model is better.
        error: the standard error of the drop; 0 where there was too little data to tell.
        compression: how many times fewer parameter bits than float32.
        short_runs: how many budgets were compared.

    Example:
        >>> sorted(field for field in bmpq_tf.SmallestBudget.__annotations__)[:3]
        ['budget', 'compression', 'drop']
    """

    budget: Budget
    model: keras.Model
    report: ExportReport
    metric: str
    value: float
    float_value: float
    drop: float
    error: float
    compression: float
    short_runs: int

    def __str__(self) -> str:
        values = f"{self.value:.4g}, float {self.float_value:.4g}"
        drop = f"drop {self.drop:.3g}, standard error {self.error:.2g}"
        return f"{self.budget}: {self.metric} {values}; {drop}\n{self.report}"


def smallest_budget(
    model: keras.Model,
    train,
    validation,
    *,
    max_drop: float,
    folder: str | os.PathLike,
    metric: str = "accuracy",
    direction: str | None = None,
    margin: float = 1.0,
    budgets: "Sequence[str | float | Budget] | None" = None,
    candidate_bits: Iterable[int] | None = None,
    activation_bits: int | None = None,
    config: QuantizationConfig | None = None,
    epochs: int = 10,
    full_epochs: int | None = None,
    float_epochs: int = 0,
    compile_model: Callable[[keras.Model, int], None] | None = None,
    batch_size: int = 32,
    optimize_for: str = "size",
    seed: int = 0,
    verbose: int = 1,
) -> SmallestBudget:
    """Finds the smallest budget under which a model stays within a tolerance of its float model.

    Bisection over budgets, by short runs that all begin with the float model's weights: five of
    them at most for the sixteen default budgets. The smallest budget that is good enough is then
    trained in full; if it does not hold there, larger ones are. The winner is exported. Needs the
    extra `tune`.

    A search that was killed goes on when it is called again, with the same model object too:
    keras-tuner stores the runs, and one in full resumes at its last epoch. The folder also gets
    `front.png`, `smallest.tflite`, `smallest.html` (as `write_report` makes it) and
    `smallest.json`.

    Judge the result on data that is in neither `train` nor `validation`: on these it was chosen.

    Args:
        model: trained, and compiled with the metric, unless `compile_model` does it. A subclassed
            one is quantized in place.
        train: arrays `(x, y)`; a data set of batches of them, not an endless one; or a function
            that returns either and a list of callbacks, and is called before each run.
        validation: arrays `(x, y)` or a data set, which budgets are judged on.
        max_drop: how much worse than the float model is good enough: in points (hundredths) of
            metrics from 0 to 1 such as accuracy, AUC and recall; in the metric's own unit
            otherwise.
        margin: standard errors of the drop that are added to it before it is compared, because few
            validation examples tell little of others. They come from parts of the data on which the
            float model is judged as well.
        folder: where everything is stored.
        metric: by the name under which `model.evaluate(..., return_dict=True)` gives it.
        direction: `"max"` or `"min"`, which of them is better; needed for metrics of your own.
        budgets: to choose from, as `BMPQCallback` takes them, all limiting the same; by default
            sixteen averages of bits a weight, from the narrowest candidates to the widest.
        candidate_bits: as `quantize_model` takes them, as the next two.
        activation_bits: of activations.
        config: everything else of the quantizers.
        epochs: of a short run.
        full_epochs: of the winner's; three times as many by default.
        float_epochs: that the float model is trained for first, in place.
        compile_model: called with a model and the epochs that it is going to be trained for, to
            compile it; by default models are compiled as `model` is, with a new optimizer.
        batch_size: of arrays.
        optimize_for: as `export_tflite` takes it; ranges are calibrated on validation inputs.
        seed: of each run.
        verbose: 1 tells each run's result and the time that is left; 0 nothing.

    Raises:
        InfeasibleBudgetError: a budget that no widths meet.
        AllocationError: a minute did not tell whether any meet flash and RAM together.
        ModuleNotFoundError: what the extra brings is not installed.
        ValueError: before any training: an argument is not understood, the model has no such
            metric or its direction is not known, or the search in the folder was started with other
            settings; after it: no budget is good enough, and which came nearest.

    Example:
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> float_model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
        >>> smallest = bmpq_tf.smallest_budget(
        ...     float_model, (images, labels), (images, labels), max_drop=10, float_epochs=30,
        ...     budgets=["4x", "7x"], epochs=3, folder=folder, verbose=0)
        >>> smallest.drop <= 10
        True
        >>> smallest.report.path == str(folder / "smallest.tflite")
        True
    """
    search_checks.check(optimize_for, margin)
    widths = None if candidate_bits is None else tuple(candidate_bits)
    lengths = search_checks.lengths(epochs, full_epochs, float_epochs)
    training = search_data.training_of(train, batch_size)
    judged = search_data.fit_arguments(validation, batch_size, "validation")
    tolerance = {"metric": metric, "direction": direction, "max_drop": max_drop}
    place = pathlib.Path(folder)
    floats = FloatRun(model, training, judged, compile_model, lengths["float"], seed)
    settings = {
        **floats.fingerprints(place, train, validation),
        **tolerance,
        "margin": margin,
        "budgets": None if budgets is None else search_settings.told_budgets(budgets),
        "quantized": f"{widths}, {activation_bits}, {config}",
        **{f"{stage}_epochs": number for stage, number in lengths.items()},
        "batch_size": batch_size,
        "seed": seed,
        **(compiled := search_settings.compiled_settings(model)),
    }
    search_settings.check(place, settings, newer=compiled)
    floats.goal(**tolerance)  # Before any training: a metric that is not there.
    options = {"activation_bits": activation_bits, "config": config}
    quantized = functools.partial(quantize_model, model, widths, **options)
    if lengths["float"]:
        # Quantizing a subclassed model would take the float one away.
        if keras_graph.is_graph(model):
            budget_grid(quantized(), budgets, lengths[SHORT])
        search_settings.note(place, settings)
        floats.train(place, verbose)
    goal = floats.sure_goal(margin, **tolerance)
    network = quantized()
    grid = budget_grid(network, budgets, lengths[SHORT])
    # Not before: what is refused may be asked for again, corrected.
    search_settings.note(place, settings)
    runs = SharedRuns(network, training, judged, floats.compile_model, goal, seed)
    tuner = _searched(runs, goal, grid, lengths, place, verbose)
    return _exported(tuner, goal, grid, place, optimize_for, judged, verbose)


def _searched(
    runs: SharedRuns,
    goal: Goal,
    grid: Sequence[Budget],
    lengths: dict[str, int],
    folder: pathlib.Path,
    verbose: int,
) -> "BisectionTuner":
    """Runs the bisection, or goes on with it, and draws it."""
    # Only now: keras-tuner is an extra.
    from bmpq_tf.tuning.bisection_tuner import BisectionOracle, BisectionTuner

    progress = BisectionProgress(goal, verbose)
    progress.start(grid, lengths)
    tuner = BisectionTuner(BisectionOracle(goal, grid), runs, lengths, folder, progress)
    tuner.find()
    plot(tuner, goal, folder / "front.png", f"{runs.model.name}: {goal.metric} over size")
    return tuner


def _exported(
    tuner: "BisectionTuner",
    goal: Goal,
    grid: Sequence[Budget],
    folder: pathlib.Path,
    optimize_for: str,
    judged: dict[str, Any],
    verbose: int,
) -> SmallestBudget:
    """Returns the winner, with its file.

    Raises:
        ValueError: there is none.
    """
    index = found(tuner.bisection.met(FULL))
    if index is None:
        raise ValueError(none_is_good_enough(tuner, goal))
    (point,) = [point for run, point in tuner.points(FULL) if run.index == index]
    model = (
        tuner.runs.model
        if tuner.last == Run(FULL, index)
        else keras_compat.load_model(point.folder / "model.keras")
    )
    inputs = search_data.first_inputs(judged)
    calibrated = {"calibrate_with": inputs} if optimize_for in ("integer", "micro") else {}
    report = export_tflite(
        model,
        folder / "smallest.tflite",
        optimize_for=optimize_for,
        verify_with=inputs,
        overwrite=True,
        verbose=verbose,
        **calibrated,
    )
    value = goal.value_of(point.accuracy)
    write_report(
        folder / "smallest.html",
        model,
        report,
        accuracy={FLOAT: goal.float_value, KERAS: value},
        metric=f"{goal.metric} on the validation data",
        overwrite=True,
    )
    numbers = {
        "metric": goal.metric,
        "value": value,
        "float_value": goal.float_value,
        "drop": goal.drop(value),
        "error": point.choices["error"],
        "compression": point.compression,
        "short_runs": len(tuner.bisection.met(SHORT)),
    }
    told = {**numbers, "budget": str(grid[index]), "tflite_bytes": report.tflite_bytes}
    write_text(folder / "smallest.json", json.dumps(told, indent=1))
    return SmallestBudget(budget=grid[index], model=model, report=report, **numbers)
