"""Runs an absl script of this folder as the library runs its commands."""

import functools

from bmpq_tf.cli import program

_TOOLS = "pip install -e '.[tools]'"
HINTS = {
    **program.HINTS,
    **dict.fromkeys(("scipy", "sklearn", "tensorflow_datasets", "yaml"), _TOOLS),
    **dict.fromkeys(("ipykernel", "nbclient", "pytest"), "pip install -e '.[test]'"),
}
run = functools.partial(program.run, hints=HINTS)
check_installed = functools.partial(program.check_installed, hints=HINTS)
