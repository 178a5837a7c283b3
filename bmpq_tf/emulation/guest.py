"""Runs in a process of its own, mostly under the emulator: does in LiteRT what the other end of a
pipe asks for.

`session.py` starts it by its path, in a Python that has LiteRT and NumPy and nothing else.
"""

import importlib.metadata
import os
import pickle
import platform
import sys
from typing import Any, BinaryIO

from ai_edge_litert.interpreter import Interpreter, OpResolverType


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers requests until there are no more.

    A request is `(released, number, method, arguments)`: interpreters that are not needed any
    longer, an interpreter's number, and what to call of it; `new` makes one. An answer
    is `("", value)` or an error's class and words.
    """
    interpreters: dict[int, Any] = {}
    while True:
        try:
            released, number, method, arguments = pickle.load(requests)
        except EOFError:
            return
        for one in released:
            interpreters.pop(one, None)
        try:
            answer: tuple[str, Any]
            if method == "new":
                kernels = OpResolverType[arguments.pop("kernels")]
                interpreters[number] = Interpreter(
                    **arguments, experimental_op_resolver_type=kernels
                )
                answer = ("", None)
            elif method == "versions":
                answer = ("", _versions())
            else:
                answer = ("", getattr(interpreters[number], method)(*arguments))
        except Exception as error:
            answer = (type(error).__name__, str(error))
        pickle.dump(answer, answers, protocol=5)
        answers.flush()


def _versions() -> str:
    packages = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("ai-edge-litert", "numpy")
    )
    return f"{packages}, Python {platform.python_version()}, {platform.machine()}"


if __name__ == "__main__":
    # Whatever a library prints must not come between the answers.
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, own)
