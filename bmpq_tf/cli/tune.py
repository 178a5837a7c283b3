"""Searches budget, candidates, learning rate and schedule for a model's accuracy-over-size front,
and exports its best points; or, with --max_drop, the smallest budget that is good enough.

Examples:
  bmpq-tune --model=mine.keras --data=mine.npz --budgets=6x,10x,14x --trials=20 --out_dir=runs/mine
  bmpq-tune --model=mine.keras --data=mine.npz --max_drop=1 --test_data=test.npz --out_dir=runs/one

--max_drop=1 stays within one point of the float model's accuracy on the validation images, by
bisection over short runs of --epochs; the winner is trained in full. It starts from the model's
weights, which --float_epochs trains first.

A search that was stopped goes on where it was when the command is given again. keras-tuner spreads
it over processes or machines that see the same --out_dir: start it once as the chief and as often
as you like as a worker,
  export KERASTUNER_ORACLE_IP=127.0.0.1 KERASTUNER_ORACLE_PORT=8000
  KERASTUNER_TUNER_ID=chief bmpq-tune ...
  KERASTUNER_TUNER_ID=worker0 bmpq-tune ...
"""

import os
import pathlib
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from rich.console import Console
from rich.table import Table

from bmpq_tf import progress
from bmpq_tf.allocation.budget import Budget
from bmpq_tf.cli.program import bit_widths, check_installed
from bmpq_tf.cli.program import run as run_program

check_installed("keras_tuner")

# isort: split
from bmpq_tf.arithmetic.scales import GRANULARITIES
from bmpq_tf.cli import smallest
from bmpq_tf.cli.arrays import load_arrays
from bmpq_tf.cli.models import check_classifier, fitting, load_model
from bmpq_tf.tuning import search_settings
from bmpq_tf.tuning.budget_grid import limited_by
from bmpq_tf.tuning.front import export_front, front, plot_front
from bmpq_tf.tuning.recipe import SCHEDULES
from bmpq_tf.tuning.search import SEARCHES, FrontTuner, Problem, Space, run_search

_SETTINGS = "search.json"
# What tells a model and its data from others of the same names; older searches have none.
_MARKS = ("weights", "held")

flags.DEFINE_string(
    "model", None, "A .keras model; every trial starts from the weights that it has."
)
flags.DEFINE_string(
    "data", None, "An .npz file with images (as the model takes them) and integer labels."
)
flags.DEFINE_float(
    "validation",
    0.1,
    "Share of the training images to judge on; the test set is left alone.",
    0.01,
    0.9,
)
flags.DEFINE_list(
    "budgets",
    ["6x", "8x", "10x", "12x"],
    "Budgets to choose from; join the limits of one by 'and': 64 kB flash and 48 kB ram.",
)
flags.DEFINE_multi_string(
    "candidate_bits",
    ["2,4,8", "2,3,4,8"],
    "A set of widths to choose from; may be given several times.",
)
flags.DEFINE_list(
    "learning_rates", ["0.02", "0.2"], "The least and the largest peak learning rate."
)
flags.DEFINE_list("schedules", list(SCHEDULES), "Schedules to choose from.")
flags.DEFINE_enum(
    "granularity",
    Problem.granularity,
    GRANULARITIES,
    "One scale per output channel, or per kernel.",
)
flags.DEFINE_integer("epochs", 10, "Epochs of each trial.", lower_bound=2)
flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1)
flags.DEFINE_integer("trials", 20, "How many choices to train.", lower_bound=1)
flags.DEFINE_enum(
    "search",
    "random",
    sorted(SEARCHES),
    "How keras-tuner chooses: bayesian seeks one trade-off, random covers the front.",
)
flags.DEFINE_integer("seed", 0, "Of the search, the weights, the split and the data order.")
flags.DEFINE_string("out_dir", None, "Where the search, the front and its files go.")
flags.DEFINE_integer("verbose", 1, "0 shows no progress, and no results of single runs.")
# absl shows those of other modules only where this is said.
flags.adopt_module_key_flags(smallest)


def _space(given) -> Space:
    """Returns what the flags ask to search over."""
    candidates = [bit_widths(widths.split(",")) for widths in given.candidate_bits]
    if len({limited_by(Budget.parse(budget)) for budget in given.budgets}) > 1:
        raise ValueError(
            "A comma separates budgets, and these limit different things. Received: --budgets="
            f"{','.join(given.budgets)}. Search one kind at a time; join the limits of one budget "
            "with 'and': --budgets='64 kB flash and 48 kB ram,96 kB flash and 64 kB ram'."
        )
    rates = _two_rates(given.learning_rates)
    return Space(given.budgets, candidates, rates, given.schedules, given.epochs)


def _search(problem: Problem, space: Space, given, settings: dict[str, str]) -> None:
    """Runs the search, or goes on with it, then plots and exports the front.

    Args:
        problem: the model and its data.
        space: what is searched over.
        given: the flags.
        settings: what else decides the outcome, by name; a search with other settings is not gone
            on with.
    """
    folder = pathlib.Path(given.out_dir)
    space.check(problem.model)
    _check_search(folder, given, settings)
    tuner = FrontTuner(
        problem, space, given.search, given.trials, given.seed, folder, given.verbose
    )
    run_search(tuner)
    if "chief" not in os.environ.get("KERASTUNER_TUNER_ID", "chief"):
        return
    # The oracle's file was written before its last trial had ended.
    tuner.save()
    points = tuner.points()
    if not points:
        raise RuntimeError(f"No trial could be trained; see the messages in '{folder / 'search'}'.")
    best = front(points)
    with progress.shown("Exporting the front", verbose=given.verbose):
        reports = export_front(best, problem.validation[0][:500], folder)
    plot_front(
        points,
        folder / "front.png",
        f"{problem.model.name}: {len(points)} trials of {given.epochs} epochs",
    )
    _print(best, reports, folder)


def main(
    arguments: list[str],
    problem_of: Callable[[flags.FlagValues], Problem] | None = None,
    names: Sequence[str] = ("model", "data"),
) -> None:
    """Searches for the model that the flags name.

    Args:
        arguments: the command line's, without its flags.
        problem_of: makes the model and its data from the flags; the user's own files by default.
        names: the flags that say which model and data they are.
    """
    given = flags.FLAGS
    if len(arguments) > 1 or not given.out_dir:
        raise ValueError(f"Give --out_dir. Received: {arguments[1:]}. See --help.")
    if given.max_drop is None:
        smallest.check_unused(given)
    else:
        smallest.check_flags(given)
    space = _space(given)
    keras.utils.set_random_seed(given.seed)
    problem = (problem_of or _own_problem)(given)
    settings = {
        **{name: given[name].value for name in names},
        _MARKS[0]: search_settings.fingerprint_of_model(problem.model),
        _MARKS[1]: search_settings.fingerprint_of_data(problem.validation),
    }
    if given.max_drop is None:
        _search(problem, space, given, settings)
        return
    if given["budgets"].present:
        space.check(problem.model)
    folder = pathlib.Path(given.out_dir)
    _check_search(folder, given, settings)
    try:
        smallest.find(problem, space, given)
    except (ValueError, OSError):
        # What is refused may be asked for again, corrected.
        if not (folder / search_settings.FILE).exists():
            (folder / _SETTINGS).unlink(missing_ok=True)
        raise


def _own_problem(given) -> Problem:
    """A model and arrays of the user's, which are taken as they are."""
    if not given.model or not os.path.isfile(given.model):
        raise FileNotFoundError(
            f"There is no such file. Received: --model={given.model}. Give --model=x.keras and "
            "--data=x.npz."
        )
    images, labels = load_arrays(given.data)
    model = load_model(given.model, "--model")
    check_classifier(model, labels)
    images = fitting(images, model, "--data")
    order = np.random.default_rng(given.seed).permutation(len(labels))
    held, kept = np.split(order, [max(1, round(given.validation * len(labels)))])

    def training():
        batches = tf.data.Dataset.from_tensor_slices((images[kept], labels[kept])).shuffle(
            len(kept), seed=given.seed
        )
        return batches.batch(min(given.batch_size, len(kept)), drop_remainder=True).prefetch(2), []

    return Problem(model, training, (images[held], labels[held]), given.granularity)


def _check_search(folder: pathlib.Path, given, settings: dict[str, str]) -> None:
    """Refuses to go on with a search that was another one."""
    names = (
        "validation",
        "budgets",
        "candidate_bits",
        "learning_rates",
        "schedules",
        "epochs",
        "granularity",
        "batch_size",
        "search",
        "seed",
    )
    # A search for the front goes on in folders of before there were these.
    more = smallest.NAMES if given.max_drop is not None else ("max_drop",)
    told = {**settings, **{name: given[name].value for name in (*names, *more)}}
    search_settings.check(folder, told, _SETTINGS, newer=_MARKS)
    search_settings.note(folder, told, _SETTINGS)


def _print(best, reports, folder: pathlib.Path) -> None:
    table = Table(title="The front, smallest first", title_justify="left", caption_justify="left")
    for name in (
        "compression",
        "accuracy",
        "file, bytes",
        "budget",
        "candidates",
        "learning rate",
        "schedule",
    ):
        table.add_column(name, justify="right")
    for point, report in zip(best, reports, strict=True):
        chosen = point.choices
        size = f"{report.tflite_bytes:,}" if report else "refused"
        row = [
            f"{point.compression:.2f}x",
            f"{point.accuracy:.2%}",
            size,
            chosen["budget"],
            chosen["candidate_bits"],
        ]
        table.add_row(*row, f"{chosen['learning_rate']:.3g}", chosen["schedule"])
    table.caption = (
        f"see {folder}/ for front.png, front.json (why a file was refused, too) and the "
        ".tflite files"
    )
    Console().print(table)


def _two_rates(words: list[str]) -> tuple[float, float]:
    try:
        low, high = map(float, words)
    except ValueError:
        raise ValueError(
            f"The rates are two numbers. Received: --learning_rates={','.join(words)}."
        ) from None
    return low, high


def run() -> None:
    """The console entry point."""
    run_program(main)


if __name__ == "__main__":
    run()
