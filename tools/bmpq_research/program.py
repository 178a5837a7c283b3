"""Runs an absl script of this folder as the library runs its commands."""

import functools
from collections.abc import Callable

from bmpq_tf.cli import program

_TOOLS = "pip install -e '.[tools]'"
HINTS = {
    **program.HINTS,
    **dict.fromkeys(("scipy", "sklearn", "tensorflow_datasets", "yaml"), _TOOLS),
    **dict.fromkeys(("ipykernel", "nbclient", "pytest"), "pip install -e '.[test]'"),
}
run_with_arguments = functools.partial(program.run, hints=HINTS)
check_installed = functools.partial(program.check_installed, hints=HINTS)


def run(main: Callable[[], None]) -> None:
    """Runs a script that takes flags only."""

    @functools.wraps(main)
    def without_arguments(arguments: list[str]) -> None:
        if len(arguments) > 1:
            raise ValueError(f"This tool takes flags only. Received: {arguments[1:]}. See --help.")
        main()

    run_with_arguments(without_arguments)
