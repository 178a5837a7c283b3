"""Prints what sensitivities predicted of whole runs.

The estimated costs of their final widths beside their training losses.

Example:
  python tools/predicted_losses.py --results=docs/results/resnet20_12x.jsonl \
      --costs=docs/results/fidelity/resnet20_seed0.json,docs/results/fidelity/resnet20_seed1.json,docs/results/fidelity/resnet20_seed2.json
"""

import json
import os
import pathlib

from absl import flags

from bmpq_research.program import check_installed
from bmpq_research.program import run as run_program

check_installed("scipy", "yaml")

# isort: split
from bmpq_research.experiments.predictions import markdown
from bmpq_research.experiments.results import read_results

flags.DEFINE_string(
    "results",
    None,
    "What tools/compare.py --out wrote of one model on one data set.",
    required=True,
)
flags.DEFINE_list(
    "costs",
    None,
    "Files that tools/fidelity.py --json wrote of the same model, one a seed.",
    required=True,
)


def main() -> None:
    """Reads and prints."""
    given = flags.FLAGS
    if not os.path.isfile(given.results):
        raise FileNotFoundError(
            f"There is no such file. Received: --results={given.results}. Give what "
            "tools/compare.py --out wrote."
        )
    judgements = [json.loads(pathlib.Path(path).read_text()) for path in given.costs]
    print(markdown(list(read_results(given.results).values()), judgements), end="")


if __name__ == "__main__":
    run_program(main)
