"""Gives the installed commands damaged files, and tells what they do.

Examples:
  python tools/damaged_files.py --files=500
  python tools/damaged_files.py --files=500 --only=137
"""

import collections
import dataclasses
import json
import pathlib
import tempfile

from absl import flags

from bmpq_research.fuzz.damaged import run
from bmpq_research.lines import append_line
from bmpq_research.program import run as run_program

flags.DEFINE_integer("files", 500, "How many.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Sets what is damaged, and how.")
flags.DEFINE_integer("only", None, "Only the file of this number; give the same --files.")
flags.DEFINE_string("out", None, "Append each answer to this file, as a line of JSON.")


def main() -> None:
    """Damages files and asks the commands."""
    given = flags.FLAGS
    outcomes: collections.Counter = collections.Counter()
    findings = 0
    with tempfile.TemporaryDirectory() as folder:
        for answer in run(pathlib.Path(folder), given.files, given.seed, given.only):
            case = answer.case
            outcomes[case.command, answer.outcome] += 1
            findings += answer.is_finding
            if given.out:
                append_line(given.out, json.dumps(dataclasses.asdict(answer)))
            if answer.is_finding or given.only is not None:
                print(
                    f"{case.number} bmpq-{case.command}, {case.original}, {case.damage}: "
                    f"{answer.outcome}\n{answer.said}",
                    flush=True,
                )
    for (command, outcome), count in sorted(outcomes.items()):
        print(f"bmpq-{command}: {count} {outcome}")
    if findings:
        raise RuntimeError(
            f"{findings} of {sum(outcomes.values())} files were not answered well. Received: "
            f"--seed={given.seed}. See above; --only=NUMBER gives one again."
        )


if __name__ == "__main__":
    run_program(main)
