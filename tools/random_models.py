"""Exports small random models over Keras's activation functions, normalisations and merge layers,
and prints how many give each kind of file, and why the others do not.

Example:
  python tools/random_models.py --models=123
"""

import dataclasses
import json

from absl import flags
from rich.console import Console

from bmpq_research.program import run as run_program
from bmpq_research.runtime_probe import random_models
from bmpq_tf.export.kernels.storage import MODES

flags.DEFINE_integer("models", 20, "How many.", lower_bound=1)
flags.DEFINE_integer("first", 0, "The first one's seed; the others' follow.")
flags.DEFINE_multi_enum("kind", list(MODES), list(MODES), "Kinds of files.")
flags.DEFINE_string("out", None, "A file that gets a line of JSON for each model.")


def main() -> None:
    """Runs and prints."""
    given, console = flags.FLAGS, Console(soft_wrap=True)
    counts, seconds = dict.fromkeys(given.kind, 0), 0.0
    for outcome in random_models.outcomes(
        range(given.first, given.first + given.models), given.kind
    ):
        seconds += outcome.seconds
        if given.out:
            with open(given.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
        for kind, found in outcome.files.items():
            if isinstance(found, str):
                console.print(f"{outcome.seed}, {kind}: {found}", markup=False)
            else:
                counts[kind] += 1
    told = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    console.print(f"{given.models} models, {seconds:.0f} s: {told}")


if __name__ == "__main__":
    run_program(main)
