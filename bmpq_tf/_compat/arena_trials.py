"""A program that tells whether files run in arenas of given sizes.

TFLM may end the process in one that is too small, so each trial has a process of its own, which is
forked from one that holds nothing but TFLM. Each line read is a size, 1 to compute once too or 0,
and a path; each line written is 1 where that works and 0 where not.
"""

import os
import signal
import sys

import numpy as np
from tflite_micro.python.tflite_micro import runtime

# For one answer; a damaged file may never end.
_SECONDS = 60


def _compute(interpreter) -> None:
    number = 0
    while True:
        try:
            detail = interpreter.get_input_details(number)
        except (IndexError, RuntimeError):
            break
        interpreter.set_input(np.zeros(detail["shape"], detail["dtype"]), number)
        number += 1
    interpreter.invoke()


def _runs(path: str, size: int, compute: bool) -> bool:
    child = os.fork()
    if not child:
        code = 1
        signal.alarm(_SECONDS)
        try:
            interpreter = runtime.Interpreter.from_file(path, arena_size=size)
            if compute:
                _compute(interpreter)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    for line in sys.stdin:
        size, compute, path = line.rstrip("\n").split(" ", 2)
        print(int(_runs(path, int(size), compute == "1")), flush=True)
