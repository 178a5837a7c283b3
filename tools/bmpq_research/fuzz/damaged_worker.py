"""Runs one installed command again and again, with the arguments that each line has, and answers
each with a line of JSON: exit code (`null` where it raised), and what was said.
"""

import contextlib
import importlib
import io
import json
import os
import sys
import traceback

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    """Serves until there are no more lines."""
    # What libraries print must not come between the answers.
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from absl import flags

    from bmpq_tf.cli import program

    command = importlib.import_module(f"bmpq_tf.cli.{sys.argv[1]}")
    if sys.argv[1] == "tune":
        # A file that can be read would be searched over for minutes.
        command._search = lambda problem, space, given, settings: None
    for line in sys.stdin:
        arguments = [f"bmpq-{sys.argv[1]}", *json.loads(line)]
        said = io.StringIO()
        code: int | None = None
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            try:
                flags.FLAGS.unparse_flags()
                left = flags.FLAGS(arguments)
                code = program.answer(command.main, left)
            except BaseException:
                said.write(traceback.format_exc())
        own.write(json.dumps({"code": code, "said": said.getvalue()}) + "\n")
        own.flush()
        for name in flags.FLAGS:
            flags.FLAGS[name].unparse()


if __name__ == "__main__":
    main()
