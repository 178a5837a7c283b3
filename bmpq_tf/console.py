"""What the command-line tools share: quiet start, errors for people, exit codes."""

import os
import sys
from collections.abc import Callable

# Set before TensorFlow is imported; its start-up messages would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, logging

# What a user can mend; anything else is a fault of ours and keeps its traceback.
_FOR_PEOPLE = (ValueError, OSError, TypeError, RuntimeError)


def run(main: Callable[[list[str]], None]) -> None:
    """Runs an absl program; an error that a user can mend is printed in one line, with exit code 1."""

    def guarded(arguments: list[str]) -> int:
        try:
            main(arguments)
        except _FOR_PEOPLE as error:
            if os.environ.get("BMPQ_TRACEBACK"):
                raise
            print(f"error: {error}\n(BMPQ_TRACEBACK=1 shows where)", file=sys.stderr)
            return 1
        return 0

    # TFLite's converter talks at length at the lower levels.
    logging.set_verbosity(logging.ERROR)
    app.run(guarded)
