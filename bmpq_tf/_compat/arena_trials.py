"""A program that tells whether files run in arenas of given sizes.

TFLM may end the process in one that is too small, so each trial has a process of its own, which is
forked from one that holds nothing but TFLM. Each line read is a size and a path; each line written
is 1 where it runs and 0 where not.
"""

import os
import sys

from tflite_micro.python.tflite_micro import runtime


def _runs(path: str, size: int) -> bool:
    child = os.fork()
    if not child:
        code = 1
        try:
            runtime.Interpreter.from_file(path, arena_size=size)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    for line in sys.stdin:
        size, path = line.rstrip("\n").split(" ", 1)
        print(int(_runs(path, int(size))), flush=True)
