"""Trains a small network with its ends pinned at 8 bits (ends), by their size (auto), and beside
float32 and int8; prints a line of JSON a run.

Example:
  python tools/compare_pins.py --task=ds_cnn --data_dir=~/spoken_digits --runs=11x:ends,11x:auto \\
      --epochs=16 --seeds=0,1,2
"""

import json

from absl import flags

from bmpq_research.experiments.pins import TASKS, run
from bmpq_research.program import run as run_program

flags.DEFINE_enum("task", "autoencoder", sorted(TASKS), "The network, which decides the data.")
flags.DEFINE_string("data_dir", None, "The folder that holds spoken_digits.npz.")
flags.DEFINE_list(
    "runs",
    ["float", "int8", "5.5x:ends", "5.5x:auto"],
    "float, int8, or a budget and a pin: 6x:auto.",
)
flags.DEFINE_integer("epochs", 20, "Epochs of each run.", lower_bound=3)
flags.DEFINE_list("seeds", ["0"], "Of weights and order.")


def main() -> None:
    """Trains every run with every seed."""
    given = flags.FLAGS
    task = TASKS[given.task](given.data_dir)
    for seed in map(int, given.seeds):
        for said in given.runs:
            kind, _, pin = said.partition(":")
            told = run(task, kind, pin or "auto", given.epochs, seed)
            print(json.dumps({"run": said, "seed": seed, **told}), flush=True)


if __name__ == "__main__":
    run_program(main)
