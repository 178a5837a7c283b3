"""Searches budget, candidates, learning rate and schedule for a model's accuracy-over-size front, and exports its best points.

Examples:
  python tools/tune.py --dataset=cifar10 --data_dir=~/tensorflow_datasets --model=resnet20 --trials=30 --out_dir=runs/tune
  python tools/tune.py --model=mine.keras --data=mine.npz --budgets=6x,10x,14x --trials=20 --out_dir=runs/mine

A search that was stopped goes on where it was when the command is given again. keras-tuner spreads it over processes or machines that see
the same --out_dir: start it once as the chief and as often as you like as a worker,
  KERASTUNER_ORACLE_IP=127.0.0.1 KERASTUNER_ORACLE_PORT=8000 KERASTUNER_TUNER_ID=chief python tools/tune.py ...
  KERASTUNER_ORACLE_IP=127.0.0.1 KERASTUNER_ORACLE_PORT=8000 KERASTUNER_TUNER_ID=worker0 python tools/tune.py ...
"""

import os

# Before TensorFlow is imported; its start-up messages would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# isort: split
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from rich.console import Console
from rich.table import Table

from bmpq_tf.console import check_installed
from bmpq_tf.console import run as run_program

check_installed("keras_tuner")

# isort: split
from bmpq_tf.arithmetic.scales import GRANULARITIES
from bmpq_tf.datasets import DATA_DIR_HELP, DATASETS, load_arrays, load_dataset, normalised_test_images, training_batches
from bmpq_tf.experiments.recipe import SCHEDULES
from bmpq_tf.experiments.tuning import SEARCHES, FrontTuner, Problem, Space, export_front, front, plot_front
from bmpq_tf.files import write_text
from bmpq_tf.models import MODELS, build_model

flags.DEFINE_string("model", "digits_cnn", f"A .keras model of yours, or one of {', '.join(MODELS)}.")
flags.DEFINE_string("data", None, "For a model of yours: an .npz file with images (as the model takes them) and integer labels.")
flags.DEFINE_string("dataset", "digits", f"For the others: {', '.join(DATASETS)}.")
flags.DEFINE_string("data_dir", None, DATA_DIR_HELP)
flags.DEFINE_float("width", 1.0, "Multiplies the channels of a model that is not yours.")
flags.DEFINE_float("validation", 0.1, "Share of the training images to judge on; the test set is left alone.", 0.01, 0.9)
flags.DEFINE_list("budgets", ["6x", "8x", "10x", "12x"], "Budgets to choose from.")
flags.DEFINE_multi_string("candidate_bits", ["2,4,8", "2,3,4,8"], "A set of widths to choose from; may be given several times.")
flags.DEFINE_list("learning_rates", ["0.02", "0.2"], "The least and the largest peak learning rate.")
flags.DEFINE_list("schedules", list(SCHEDULES), "Schedules to choose from.")
flags.DEFINE_enum("granularity", Problem.granularity, GRANULARITIES, "One scale per output channel, or per kernel.")
flags.DEFINE_integer("epochs", 10, "Epochs of each trial.", lower_bound=2)
flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1)
flags.DEFINE_integer("trials", 20, "How many choices to train.", lower_bound=1)
flags.DEFINE_enum("search", "random", sorted(SEARCHES), "How keras-tuner chooses: bayesian seeks one trade-off, random covers the front.")
flags.DEFINE_integer("seed", 0, "Of the search, the weights, the split and the data order.")
flags.DEFINE_string("out_dir", None, "Where the search, the front and its files go.")


def main(arguments: list[str]) -> None:
    """Searches, then plots and exports the front."""
    given = flags.FLAGS
    if len(arguments) > 1 or not given.out_dir:
        raise ValueError(f"Give --out_dir. Received: {arguments[1:]}. See --help.")
    folder = pathlib.Path(given.out_dir)
    space = Space(
        given.budgets,
        [_numbers(widths.split(","), int, "candidate_bits") for widths in given.candidate_bits],
        _numbers(given.learning_rates, float, "learning_rates", 2),
        given.schedules,
        given.epochs,
    )
    if given.data and not given.model.endswith(".keras"):
        raise ValueError(f"Data of yours need a model of yours. Received: --data={given.data}, --model={given.model}. Give --model=x.keras.")
    keras.utils.set_random_seed(given.seed)
    problem = _own_problem(given) if given.model.endswith(".keras") else _named_problem(given)
    space.check(problem.model)
    _check_search(folder, given)
    tuner = FrontTuner(problem, space, given.search, given.trials, given.seed, folder)
    tuner.search()
    if "chief" not in os.environ.get("KERASTUNER_TUNER_ID", "chief"):
        return
    # The oracle's file was written before its last trial had ended.
    tuner.save()
    points = tuner.points()
    if not points:
        raise RuntimeError(f"No trial could be trained; see the messages in '{folder / 'search'}'.")
    best = front(points)
    reports = export_front(best, problem, folder)
    plot_front(points, folder / "front.png", f"{pathlib.Path(given.model).name}: {len(points)} trials of {given.epochs} epochs")
    _print(best, reports, folder)


def _named_problem(given) -> Problem:
    dataset = load_dataset(given.dataset, given.data_dir)
    dataset = dataset.with_validation(round(given.validation * len(dataset.train[1])))
    mean, std = dataset.moments()

    def training(counter):
        return training_batches(
            *dataset.train, batch_size=given.batch_size, seed=given.seed, counter=counter, mean=mean, std=std,
            augment=dataset.augment, crop_padding=dataset.crop_padding,
        )  # fmt: skip

    images = np.concatenate([images.numpy() for images, _ in normalised_test_images(dataset)])
    model = build_model(given.model, dataset.image_shape, dataset.num_classes, given.width)
    return Problem(model, training, (images, dataset.test[1]), given.granularity)


def _own_problem(given) -> Problem:
    """A model and arrays of the user's, which are taken as they are."""
    if not os.path.isfile(given.model):
        raise FileNotFoundError(f"There is no such file. Received: --model={given.model}. A model of yours needs --model=x.keras and --data=x.npz.")
    images, labels = load_arrays(given.data)
    model = keras.models.load_model(given.model, compile=False)
    order = np.random.default_rng(given.seed).permutation(len(labels))
    held, kept = np.split(order, [max(1, round(given.validation * len(labels)))])

    def training(counter):
        # The counter is not asked: the order of a trial is a function of the seed alone.
        batches = tf.data.Dataset.from_tensor_slices((images[kept], labels[kept])).shuffle(len(kept), seed=given.seed)
        return batches.batch(min(given.batch_size, len(kept)), drop_remainder=True).prefetch(2)

    return Problem(model, training, (images[held], labels[held]), given.granularity)


def _check_search(folder: pathlib.Path, given) -> None:
    """Refuses to go on with a search that was another one."""
    names = ("model", "data", "dataset", "width", "validation", "budgets", "candidate_bits", "learning_rates", "schedules", "epochs")
    told = {name: given[name].value for name in (*names, "granularity", "batch_size", "search", "seed")}
    file = folder / "search.json"
    # Searches did not tell their granularity while channels were the default.
    known = {"granularity": "channel", **json.loads(file.read_text())} if file.exists() else told
    if different := [name for name in told if told[name] != known.get(name)]:
        was = ", ".join(f"{name}={known.get(name)!r}" for name in different)
        now = ", ".join(f"{name}={told[name]!r}" for name in different)
        raise ValueError(f"The search in '{folder}' is another one. Received: {now}; it was started with {was}. Give another --out_dir.")
    if not file.exists():
        write_text(file, json.dumps(told, indent=1))


def _print(best, reports, folder: pathlib.Path) -> None:
    table = Table(title="The front, smallest first", title_justify="left", caption_justify="left")
    for name in ("compression", "accuracy", "file, bytes", "budget", "candidates", "learning rate", "schedule"):
        table.add_column(name, justify="right")
    for point, report in zip(best, reports, strict=True):
        chosen = point.choices
        size = f"{report.tflite_bytes:,}" if report else "refused"
        row = [f"{point.compression:.2f}x", f"{point.accuracy:.2%}", size, chosen["budget"], chosen["candidate_bits"]]
        table.add_row(*row, f"{chosen['learning_rate']:.3g}", chosen["schedule"])
    table.caption = f"see {folder}/ for front.png, front.json (why a file was refused, too) and the .tflite files"
    Console().print(table)


def _numbers(words: list[str], kind: type, name: str, count: int | None = None) -> tuple:
    try:
        numbers = tuple(kind(word) for word in words)
    except ValueError:
        numbers = ()
    if not numbers or (count and len(numbers) != count):
        raise ValueError(f"Expected {count or ''} numbers. Received: --{name}={','.join(words)}.")
    return numbers


def run() -> None:
    """The console entry point."""
    run_program(main)


if __name__ == "__main__":
    run()
