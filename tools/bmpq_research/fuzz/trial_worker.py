"""Runs the seeds that its lines name, and answers each with a line of JSON."""

import dataclasses
import json
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    """Serves until there are no more lines."""
    # What libraries print must not come between the answers.
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from absl import logging

    from bmpq_research.fuzz.trial import Trial

    # TFLite's converter talks at length at the lower levels.
    logging.set_verbosity(logging.ERROR)
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            result = Trial(int(line), pathlib.Path(folder)).run()
        own.write(json.dumps(dataclasses.asdict(result)) + "\n")
        own.flush()


if __name__ == "__main__":
    main()
