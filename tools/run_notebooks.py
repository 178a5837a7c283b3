"""Runs the notebooks of docs/notebooks and keeps what they print and draw.

Each runs from top to bottom in a folder of its own, without a network. What differs from run to run
(times, ids) and what only this machine says (messages of the runtimes) is left out of the file.
Where BMPQ_DATA_DIR names the data sets' folder, keyword_spotting takes spoken digits from it.

Examples:
  python tools/run_notebooks.py
  python tools/run_notebooks.py docs/notebooks/first_model.ipynb --out_dir=/tmp/notebooks
"""

import pathlib

from absl import flags

from bmpq_research import notebooks
from bmpq_research.program import check_installed, run_with_arguments

flags.DEFINE_string("out_dir", None, "Where the notebooks go; where they came from if not given.")
flags.DEFINE_integer("timeout", 120, "Seconds that a notebook may take.", lower_bound=1)

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "notebooks"


def main(arguments: list[str]) -> None:
    """Runs the notebooks named, or all of them."""
    check_installed("nbclient", "ipykernel")
    for path in map(pathlib.Path, arguments[1:] or sorted(FOLDER.glob("*.ipynb"))):
        out = pathlib.Path(flags.FLAGS.out_dir or path.parent) / path.name
        seconds = notebooks.run(path, out, flags.FLAGS.timeout)
        print(f"{out}: {seconds:.0f} s, {out.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    run_with_arguments(main)
