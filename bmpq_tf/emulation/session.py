"""LiteRT's interpreter, computing on an emulated ARM processor."""

import contextlib
import itertools
import os
import pathlib
import pickle
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Iterator
from typing import IO, Any

from bmpq_tf.emulation.root import CPU, PYTHON, QEMU, SITE, ready_root

_GUEST = pathlib.Path(__file__).with_name("guest.py")
_ERRORS = {"ValueError": ValueError, "TypeError": TypeError}


class Session:
    """One emulated process, which holds any number of interpreters.

    Args:
        cpu: the processor, as qemu calls it.

    Raises:
        FileNotFoundError: the emulated root is not set up.
    """

    def __init__(self, cpu: str = CPU):
        root = ready_root()
        # What a library says there is shown only if the process ends.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [root / QEMU, "-cpu", cpu, "-L", root, root / PYTHON, "-B", _GUEST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={"PYTHONPATH": str(root / SITE), "LC_ALL": "C.UTF-8"},
        )
        self._lock, self._numbers = threading.Lock(), itertools.count()
        self._released: list[int] = []
        self.close = weakref.finalize(self, _end, self._process, self._said)

    @property
    def is_open(self) -> bool:
        """Whether the process still runs."""
        return self.close.alive and self._process.poll() is None

    def new(self, **arguments) -> int:
        """Makes an interpreter there, and returns its number."""
        number = next(self._numbers)
        self.ask(number, "new", arguments)
        return number

    def versions(self) -> str:
        """Returns what computes there, in a line."""
        return self.ask(-1, "versions")

    def release(self, number: int) -> None:
        """Forgets an interpreter, with the next request: this may be called at any moment."""
        self._released.append(number)

    def ask(self, number: int, method: str, arguments: Any = ()) -> Any:
        """Calls a method of an interpreter there.

        Raises:
            RuntimeError: what LiteRT raises, or the process has ended.
            ValueError: what LiteRT raises.
        """
        with self._lock:
            released, self._released = self._released, []
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            try:
                pickle.dump((released, number, method, arguments), self._process.stdin, protocol=5)
                self._process.stdin.flush()
                error, value = pickle.load(self._process.stdout)
            except (EOFError, OSError, pickle.UnpicklingError) as broken:
                raise RuntimeError(self._last_words()) from broken
        if error:
            raise _ERRORS.get(error, RuntimeError)(value)
        return value

    def _last_words(self) -> str:
        try:
            code: int | str = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            code = "none yet"
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()
        return (
            f"The emulated arm64 runtime ended (exit code {code}). It said: "
            f"{said[-1] if said else 'nothing'}"
        )


def _end(process: subprocess.Popen, said: IO[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        # What was not sent yet finds nobody there.
        with contextlib.suppress(OSError):
            if stream:
                stream.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    said.close()


# By process: a forked one must not talk into its parent's pipe.
_sessions: dict[int, Session] = {}


def shared() -> Session:
    """Returns the session of this process; starts it when it is first asked for, or has ended."""
    session = _sessions.get(os.getpid())
    if session is None or not session.is_open:
        session = _sessions[os.getpid()] = Session()
    return session


@contextlib.contextmanager
def on_processor(cpu: str) -> Iterator[Session]:
    """While it lasts, this process's session computes on another processor.

    Args:
        cpu: as qemu calls it.
    """
    before = _sessions.get(os.getpid())
    session = _sessions[os.getpid()] = Session(cpu)
    try:
        yield session
    finally:
        session.close()
        del _sessions[os.getpid()]
        if before is not None:
            _sessions[os.getpid()] = before


class Interpreter:
    """What `bmpq_tf` uses of `ai_edge_litert.interpreter.Interpreter`, computed there.

    Args:
        model_content: as LiteRT's own takes it.
        num_threads: likewise.
        experimental_op_resolver_type: likewise.
        session: where; this process's own by default.

    Raises:
        FileNotFoundError: the emulated root is not set up.
        ValueError: LiteRT cannot read the file.
    """

    def __init__(
        self,
        model_content: bytes,
        num_threads: int = 1,
        experimental_op_resolver_type: Any = None,
        session: Session | None = None,
    ):
        self._session = session or shared()
        kernels = getattr(experimental_op_resolver_type, "name", "AUTO")
        self._number = self._session.new(
            model_content=bytes(model_content), num_threads=num_threads, kernels=kernels
        )
        weakref.finalize(self, self._session.release, self._number)

    def _ask(self, method: str, *arguments):
        return self._session.ask(self._number, method, arguments)

    def get_input_details(self) -> list[dict]:
        return self._ask("get_input_details")

    def get_output_details(self) -> list[dict]:
        return self._ask("get_output_details")

    def resize_tensor_input(self, index: int, shape) -> None:
        self._ask("resize_tensor_input", index, tuple(shape))

    def allocate_tensors(self) -> None:
        self._ask("allocate_tensors")

    def set_tensor(self, index: int, values) -> None:
        self._ask("set_tensor", index, values)

    def invoke(self) -> None:
        self._ask("invoke")

    def get_tensor(self, index: int):
        return self._ask("get_tensor", index)
