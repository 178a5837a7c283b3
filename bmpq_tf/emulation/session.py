"""LiteRT's interpreter, computing in a process of its own: on an emulated ARM processor, or here,
where a damaged file may end that process and not ours.
"""

import contextlib
import itertools
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from bmpq_tf.emulation.root import CPU, PYTHON, QEMU, SITE, ready_root

_GUEST = pathlib.Path(__file__).with_name("guest.py")
# For an answer of a process on this machine: one batch, whatever the model.
SECONDS = 300.0
_ERRORS = {"ValueError": ValueError, "TypeError": TypeError}


class Session:
    """One process, which holds any number of interpreters.

    Args:
        name: what it is called in messages.
        command: how it is started.
        environment: its variables; this process's by default.
        seconds: how long an answer may take; any time by default.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | os.PathLike],
        environment: dict[str, str] | None = None,
        seconds: float | None = None,
    ):
        self._name, self._seconds = name, seconds
        # What a library says there is shown only if the process ends.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [*command, "-B", _GUEST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
        )
        self._lock, self._numbers = threading.Lock(), itertools.count()
        self._released: list[int] = []
        self.close = weakref.finalize(self, _end, self._process, self._said)

    @classmethod
    def emulated(cls, cpu: str = CPU) -> "Session":
        """Starts one on an emulated processor.

        Args:
            cpu: the processor, as qemu calls it.

        Raises:
            FileNotFoundError: the emulated root is not set up.
        """
        root = ready_root()
        return cls(
            "The emulated arm64 runtime",
            [root / QEMU, "-cpu", cpu, "-L", root, root / PYTHON],
            {"PYTHONPATH": str(root / SITE), "LC_ALL": "C.UTF-8"},
        )

    @classmethod
    def beside(cls) -> "Session":
        """Starts one on this machine."""
        return cls("LiteRT", [sys.executable], seconds=SECONDS)

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
            with self._limited() as took_too_long:
                try:
                    request = (released, number, method, arguments)
                    pickle.dump(request, self._process.stdin, protocol=5)
                    self._process.stdin.flush()
                    error, value = pickle.load(self._process.stdout)
                except (EOFError, OSError, pickle.UnpicklingError) as broken:
                    raise RuntimeError(self._last_words(took_too_long.is_set())) from broken
                except BaseException:
                    # An interrupt: the answer to come would be taken for the next one's.
                    self._process.kill()
                    raise
        if error:
            raise _ERRORS.get(error, RuntimeError)(value)
        return value

    @contextlib.contextmanager
    def _limited(self) -> Iterator[threading.Event]:
        """Ends the process where an answer takes longer than it may; the event tells of it."""
        took_too_long = threading.Event()
        if self._seconds is None:
            yield took_too_long
            return

        def end() -> None:
            took_too_long.set()
            self._process.kill()

        timer = threading.Timer(self._seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield took_too_long
        finally:
            timer.cancel()

    def _last_words(self, took_too_long: bool) -> str:
        if took_too_long:
            return f"{self._name} gave no answer within {self._seconds:.0f} seconds."
        try:
            code: int | str = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            code = "none yet"
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()
        return f"{self._name} ended (exit code {code}). It said: {said[-1] if said else 'nothing'}"


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
_beside: dict[int, Session] = {}


def shared() -> Session:
    """Returns this process's emulated one; starts it when it is first asked for, or has ended."""
    return _of_this_process(_sessions, Session.emulated)


def beside() -> Session:
    """Returns this process's other one on this machine, likewise."""
    return _of_this_process(_beside, Session.beside)


def _of_this_process(sessions: dict[int, Session], start: Callable[[], Session]) -> Session:
    session = sessions.get(os.getpid())
    if session is None or not session.is_open:
        session = sessions[os.getpid()] = start()
    return session


@contextlib.contextmanager
def on_processor(cpu: str) -> Iterator[Session]:
    """While it lasts, this process's session computes on another processor.

    Args:
        cpu: as qemu calls it.
    """
    before = _sessions.get(os.getpid())
    session = _sessions[os.getpid()] = Session.emulated(cpu)
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
        session: where; this process's emulated one by default.

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
