"""`bmpq-tune --max_drop`: the smallest model that is good enough."""

import pathlib
from typing import Any

import keras
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from bmpq_tf.cli.arrays import load_arrays
from bmpq_tf.cli.models import check_labels, fitting
from bmpq_tf.conversion.config import QuantizationConfig
from bmpq_tf.export.kernels.storage import MODES
from bmpq_tf.export.run import run_tflite
from bmpq_tf.tuning.goal import checked_drop
from bmpq_tf.tuning.search import Problem, Space
from bmpq_tf.tuning.smallest import SmallestBudget, smallest_budget

flags.DEFINE_float(
    "max_drop",
    None,
    "Find the smallest budget within so many points of the float model's accuracy, or so much of "
    "its loss.",
)
flags.DEFINE_float(
    "margin", 1.0, "Standard errors of the drop to add, because validation images are few.", 0.0
)
flags.DEFINE_enum("metric", "accuracy", ["accuracy", "loss"], "What --max_drop is of.")
flags.DEFINE_integer("float_epochs", 0, "Epochs to train the float model for first.", 0)
flags.DEFINE_integer("full_epochs", None, "Epochs of the winner; three times --epochs.", 2)
flags.DEFINE_string(
    "test_data", None, "An .npz file like --data that the search never sees, to judge the file on."
)
flags.DEFINE_enum("optimize_for", "size", MODES, "The kind of file of the winner.")
NAMES = ("max_drop", "margin", "metric", "float_epochs", "full_epochs")
# What a search for a front does not read.
_ALONE = (*NAMES[1:], "test_data", "optimize_for")
# What bisection takes one of; where the flag is not given, that one.
_ONE = {"candidate_bits": "2,4,8", "schedules": "cosine", "learning_rates": "0.05"}


def check_flags(given) -> None:
    """Sets what is not given to what a search for the smallest budget takes.

    Raises:
        ValueError: a flag has several values where one is needed, or --max_drop is no tolerance.
    """
    checked_drop(given.max_drop)
    for name in ("trials", "search"):
        if given[name].present:
            raise ValueError(
                f"--{name} is for the search for a front; bisection chooses itself. Received: "
                f"--max_drop={given.max_drop:g} --{name}={given[name].value}. Leave one out."
            )
    for name, default in _ONE.items():
        if not given[name].present:
            given[name].value = [default]
        elif len(given[name].value) != 1:
            raise ValueError(
                "--max_drop searches over budgets alone. Received: "
                f"--{name}={','.join(given[name].value)}. Give one."
            )
    # A single rate is both ends of its range.
    given["learning_rates"].value *= 2


def check_unused(given) -> None:
    """Raises ValueError for flags that only a search for the smallest budget reads."""
    for name in _ALONE:
        if given[name].present:
            raise ValueError(
                f"--{name} is for the search for the smallest budget. Received: "
                f"--{name}={given[name].value} without --max_drop. Give --max_drop, or leave it "
                "out."
            )


def find(problem: Problem, space: Space, given) -> None:
    """Searches, or goes on, and tells the winner and what it reaches on data that it did not see.

    Args:
        problem: the model and its data.
        space: with one choice of all but the budget.
        given: the flags.
    """
    network, test = problem.model, None
    if given.test_data:
        images, labels = load_arrays(given.test_data, "--test_data")
        test = fitting(images, network, "--test_data"), labels
        check_labels(labels, network.outputs[0].shape[1])
    steps = len(problem.training()[0])

    def compile_model(model: keras.Model, epochs: int) -> None:
        problem.compile(model, steps, epochs, space.learning_rates[0], space.schedules[0])

    smallest = smallest_budget(
        network,
        problem.training,
        problem.validation,
        max_drop=given.max_drop,
        folder=given.out_dir,
        metric=given.metric,
        margin=given.margin,
        budgets=space.budgets if given["budgets"].present else None,
        candidate_bits=space.candidates[0],
        config=QuantizationConfig(granularity=problem.granularity),
        epochs=space.epochs,
        full_epochs=given.full_epochs,
        float_epochs=given.float_epochs,
        compile_model=compile_model,
        batch_size=250,
        optimize_for=given.optimize_for,
        seed=given.seed,
        verbose=given.verbose,
    )
    _print(smallest, network, test, pathlib.Path(given.out_dir))


def _print(smallest: SmallestBudget, network: keras.Model, test, folder: pathlib.Path) -> None:
    table = Table(
        title=f"The smallest that is good enough: {smallest.budget}",
        title_justify="left",
        caption_justify="left",
    )
    for name in ("", "float", "smallest", "drop"):
        table.add_column(name, justify="right" if name else "left")

    def row(name: str, before: float, after: float, drop: float, is_share: bool = True) -> None:
        values = [f"{value:.2%}" if is_share else f"{value:.4g}" for value in (before, after)]
        table.add_row(name, *values, f"{drop:.2f} points" if is_share else f"{drop:.4g}")

    values = (smallest.float_value, smallest.value, smallest.drop)
    row(f"{smallest.metric}, validation, in Keras", *values, is_share=smallest.metric == "accuracy")
    if test is not None:
        images, labels = test
        answers: Any = network.predict(images, batch_size=250, verbose=0)  # pyright: ignore[reportArgumentType]
        before = float(np.mean(answers.argmax(-1) == labels))
        (answers,) = run_tflite(smallest.report.path, images)
        after = float(np.mean(answers.argmax(-1) == labels))
        row("accuracy, test data, in LiteRT", before, after, 100 * (before - after))
    table.caption = (
        f"{smallest.compression:.2f}x fewer parameter bits, {smallest.report.tflite_bytes:,} "
        f"bytes, {smallest.short_runs} short runs; see {folder}/ for smallest.tflite, "
        "smallest.html and front.png"
    )
    Console().print(table)
