"""Where a file is verified: on this machine's processor, or on an emulated one."""

import functools

from bmpq_tf.arguments import check_known
from bmpq_tf.emulation import session
from bmpq_tf.emulation.root import is_arm, ready_root
from bmpq_tf.export.tflite.interpreter import Runtime, TFLiteModel

# "host" is this machine.
PLACES = ("host", "arm64")


def check_place(name: str, place: str) -> None:
    """Refuses a place that is not known or not set up.

    Args:
        name: what the user calls the argument, for the message.
        place: one of `PLACES`.

    Raises:
        FileNotFoundError: it is not set up; the message has the command that does it.
        ValueError: it is not known.
    """
    check_known(name, place, PLACES)
    if place == "arm64" and not is_arm():
        ready_root()


def runtime_on(place: str) -> Runtime:
    """Returns what runs files there."""
    if place == "host" or is_arm():
        return TFLiteModel
    return functools.partial(TFLiteModel, interpreter=session.Interpreter)


def runtime_apart(place: str) -> Runtime:
    """Returns what runs files there, in a process of its own: a damaged file may end LiteRT's."""
    if place != "host" and not is_arm():
        return runtime_on(place)
    return functools.partial(TFLiteModel, interpreter=_beside)


def _beside(**arguments) -> session.Interpreter:
    return session.Interpreter(**arguments, session=session.beside())
