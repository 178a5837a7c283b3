"""Trains a model at its widest widths, makes its kernels narrow one by one, and prints which
sensitivities predicted the loss increase.

Example:
  python tools/fidelity.py --model=resnet20 --channel_multiplier=0.5 --dataset=cifar10 \\
      --data_dir=~/tensorflow_datasets --budget=12x --epochs=3
"""

import dataclasses
import json

from absl import flags
from rich.console import Console
from rich.table import Table

from bmpq_research.program import check_installed
from bmpq_research.program import run as run_program
from bmpq_tf.arithmetic.scales import GRANULARITIES
from bmpq_tf.cli.program import bit_widths

check_installed("scipy")

# isort: split
from bmpq_research.datasets import DATA_DIR_HELP
from bmpq_research.experiments.fidelity import JUDGED, fidelity
from bmpq_research.experiments.train_config import TrainConfig
from bmpq_tf.cli.program import command
from bmpq_tf.files import write_text

flags.DEFINE_string("model", "digits_cnn", "A name that bmpq_research.models knows.")
flags.DEFINE_string("dataset", "digits", "A name that bmpq_research.datasets knows.")
flags.DEFINE_string("data_dir", None, DATA_DIR_HELP)
flags.DEFINE_float("channel_multiplier", 1.0, "Multiplies the model's channels.")
flags.DEFINE_string("budget", "12x", "Of the allocations that are compared.")
flags.DEFINE_list("candidate_bits", ["2", "3", "4", "8"], "Widths to measure, 2 to 8.")
flags.DEFINE_enum(
    "granularity",
    TrainConfig.granularity,
    GRANULARITIES,
    "One scale per output channel, or per kernel.",
)
flags.DEFINE_integer("epochs", 3, "Of training at the widest widths, before anything is measured.")
flags.DEFINE_integer(
    "validation",
    0,
    "Judge on this many training images that are held out; on the test images if 0.",
)
flags.DEFINE_integer("images", 2500, "Judged images that losses are taken over.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of weights, order, augmentation and the random control.")
flags.DEFINE_string("json", None, "Write the figures to this file too.")
flags.DEFINE_integer(
    "verbose", 2, "0: the table only; 1: also a progress bar; 2: also a line an epoch."
)


def main() -> None:
    """Trains, measures and prints."""
    given = flags.FLAGS
    config = TrainConfig(
        model=given.model,
        dataset=given.dataset,
        data_dir=given.data_dir,
        channel_multiplier=given.channel_multiplier,
        budget=given.budget,
        candidate_bits=bit_widths(given.candidate_bits),
        epochs=given.epochs,
        validation=given.validation,
        granularity=given.granularity,
        seed=given.seed,
    )
    estimates, costs = fidelity(config, given.images, given.verbose)
    title = (
        f"{given.model} on {given.dataset}, {given.epochs} epochs, seed {given.seed}: widths "
        f"at {given.budget}"
    )
    table = Table(title=title, title_justify="left", caption_justify="left")
    for column in (
        "costs by",
        "rank correlation",
        "summed",
        "at once",
        "widths of the open kernels",
    ):
        table.add_column(column, no_wrap=column == "costs by")
    table.caption = (
        "Rank correlation over kernels, of the costs with the measured loss increases at the "
        "narrowest width; the measured increases of "
        "the allocated widths, in nats, summed over kernels and with all of them at once."
    )
    for estimate in estimates:
        allocated = " ".join(str(estimate.bits[path]) for path in costs["measured"])
        table.add_row(
            estimate.name,
            f"{estimate.correlation:.2f}",
            f"{estimate.summed:.4f}",
            f"{estimate.together:.4f}",
            allocated,
        )
    Console().print(table)
    if given.json:
        settings = {name: getattr(config, name) for name in JUDGED}
        told = {
            "command": command(),
            **settings,
            "estimates": [dataclasses.asdict(estimate) for estimate in estimates],
            "costs": costs,
        }
        write_text(given.json, json.dumps(told, indent=1))


if __name__ == "__main__":
    run_program(main)
