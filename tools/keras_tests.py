"""Runs Keras's own tests of the layers in the registry against the quantized classes, at 8 bits.

Those of LoRA and of Keras's own quantize() are left out.

Examples:
  python tools/keras_tests.py
  python tools/keras_tests.py --files=dense,lstm
  python tools/keras_tests.py --keras_source=~/keras/keras/src
"""

import dataclasses
import json
import pathlib

from absl import flags

from bmpq_research.program import check_installed
from bmpq_research.program import run as run_program

check_installed("pytest")

# isort: split
from bmpq_research.keras_tests import files_of_tests, installed_source, run, table
from bmpq_tf.files import write_text

flags.DEFINE_string(
    "keras_source", None, "The folder keras/src of a checkout; by default that of the wheel."
)
flags.DEFINE_list("files", [], "Only these, without _test.py, such as dense,lstm.")
flags.DEFINE_string("out", None, "Also write each test's outcome to this file, as JSON.")


def main() -> None:
    """Runs the tests and prints the table."""
    given = flags.FLAGS
    source = pathlib.Path(given.keras_source) if given.keras_source else installed_source()
    files = files_of_tests(source)
    if given.files:
        known = {path.name.removesuffix("_test.py"): path for path in files}
        if unknown := sorted(set(given.files) - set(known)):
            raise ValueError(
                f"There are no such tests. Received: --files={','.join(unknown)}. Known: "
                f"{', '.join(known)}."
            )
        files = [known[name] for name in given.files]
    outcomes = run(files)
    if given.out:
        write_text(given.out, json.dumps([dataclasses.asdict(one) for one in outcomes], indent=1))
    print(table(outcomes))


if __name__ == "__main__":
    run_program(main)
