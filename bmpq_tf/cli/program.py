"""What the commands share: errors for people, exit codes, bit-widths from flags."""

import functools
import importlib.util
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence

from absl import app, flags, logging

from bmpq_tf import runtime_messages

# What a user can mend; anything else is a fault of ours and keeps its traceback.
FOR_PEOPLE = (ValueError, OSError, TypeError, RuntimeError)
# By the names that are imported: how to install what is optional.
_TUNE = "pip install 'bmpq_tf[tune]'"
HINTS: dict[str, str] = {
    "ethosu": "pip install 'bmpq_tf[npu]'",
    "keras_tuner": _TUNE,
    "matplotlib": _TUNE,
    "tensorboard": "pip install 'bmpq_tf[tensorboard]'",
    "tflite_micro": "pip install 'bmpq_tf[micro]'",
}


def run(main: Callable[[list[str]], None], hints: Mapping[str, str] = HINTS) -> None:
    """Runs an absl program; an error that a user can mend is printed in one line, with exit code 1.

    Args:
        main: takes the command's arguments, its own name first.
        hints: by module that may be missing, the command that installs it.
    """
    _show_help_of(sys.modules[main.__module__])
    runtime_messages.start()
    # TFLite's converter talks at length at the lower levels.
    if not runtime_messages.are_asked_for():
        logging.set_verbosity(logging.ERROR)
    app.run(functools.partial(answer, main, hints=hints))


def answer(
    main: Callable[[list[str]], None], arguments: list[str], hints: Mapping[str, str] = HINTS
) -> int:
    """Calls a command's `main`, prints an error that a user can mend, and returns the exit code."""
    _expand_home()
    try:
        main(arguments)
    except FOR_PEOPLE as error:
        if os.environ.get("BMPQ_TRACEBACK"):
            raise
        print(f"error: {error}\n(BMPQ_TRACEBACK=1 shows where)", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in hints:
            raise
        print(_not_installed(missing, hints), file=sys.stderr)
        return 1
    return 0


def check_installed(*modules: str, hints: Mapping[str, str] = HINTS) -> None:
    """Ends the program if one of these optional modules is not installed.

    For commands whose own modules import them.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            sys.exit(_not_installed(module, hints))


def _not_installed(module: str, hints: Mapping[str, str]) -> str:
    return f"error: this needs {module}, which is not installed. Install it: {hints[module]}."


def command() -> str:
    """Returns the command line, as it can be typed again."""
    # What is run with -m has a specification.
    module = getattr(sys.modules["__main__"], "__spec__", None)
    script = sys.argv[0]
    start = ["python", script] if script.endswith(".py") else [os.path.basename(script)]
    if module is not None:
        start = ["python", "-m", module.name]
    return shlex.join([*start, *sys.argv[1:]])


def bit_widths(words: Sequence[str]) -> tuple[int, ...]:
    """Returns what `--candidate_bits=2,4,8` says.

    Raises:
        ValueError: a word is no whole number.
    """
    try:
        return tuple(int(word) for word in words)
    except ValueError:
        raise ValueError(
            f"Widths are whole numbers from 2 to 8. Received: --candidate_bits={','.join(words)}."
        ) from None


def _expand_home() -> None:
    """A shell leaves the ~ of `--out_dir=~/runs` as it is."""
    for name in flags.FLAGS:
        value = flags.FLAGS[name].value
        if isinstance(value, list):
            flags.FLAGS[name].value = [
                os.path.expanduser(part) if str(part).startswith("~") else part for part in value
            ]
        elif isinstance(value, str) and value.startswith("~"):
            flags.FLAGS[name].value = os.path.expanduser(value)


def _show_help_of(module) -> None:
    """absl's --help tells of the program that was started.

    An installed command is only a stub that imports the tool.
    """
    if module.__name__ != "__main__":
        sys.modules["__main__"].__doc__ = module.__doc__
        for flag in flags.FLAGS.get_key_flags_for_module(module.__name__):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
