"""Running a file in TFLM, and the memory that it needs there."""

import atexit
import contextlib
import dataclasses
import functools
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from bmpq_tf import _compat
from bmpq_tf.allocation.device_plan import ARENA_STEP
from bmpq_tf.export.micro.operators import check_installed
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.decode import is_decode
from bmpq_tf.export.tflite.interpreter import TFLiteModel, dequantized, quantized
from bmpq_tf.export.tflite.standard_error import hushed, silenced


class MicroModel:
    """A `.tflite` model in TFLM's interpreter, called with NumPy arrays.

    Args:
        content: the file's bytes.
        arena_bytes: the memory for everything that is computed; by default more than enough.
        xnnpack: TFLM has none; so that the class is called like LiteRT's.

    Raises:
        RuntimeError: TFLM cannot run it; the message is the runtime's.
    """

    def __init__(self, content: bytes, arena_bytes: int | None = None, xnnpack: bool = False):
        check_installed("Running a file in TFLM")
        self._interpreter = _started(content, arena_bytes or _ample(content))
        self.inputs, self.outputs = _ends(self._interpreter)

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the outputs for one batch of inputs, in the model's order; int8 is float here.

        A file has a batch size of its own, mostly one: a batch of another size runs in parts.
        """
        _, answers = self.integers(inputs)
        return [
            dequantized(answer, detail)
            for answer, detail in zip(answers, self.outputs, strict=True)
        ]

    def integers(self, inputs: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Returns inputs and outputs for one batch as the runtime holds them."""
        size, count = int(self.inputs[0]["shape"][0]), len(inputs[0])
        given = [
            quantized(np.asarray(value), detail)
            for value, detail in zip(inputs, self.inputs, strict=True)
        ]
        parts = []
        for start in range(0, count, size):
            for number, value in enumerate(given):
                part = np.take(value, range(start, start + size), 0, mode="wrap")
                self._interpreter.set_input(part, number)
            _invoke(self._interpreter)
            parts.append([self._interpreter.get_output(n).copy() for n in range(len(self.outputs))])
        return given, [np.concatenate(output)[:count] for output in zip(*parts, strict=True)]


def runtime_of(content: bytes) -> type[TFLiteModel] | type[MicroModel]:
    """Returns what runs a file: TFLM where it unpacks kernels, or was written for it; LiteRT
    otherwise.
    """
    model = flatbuffer.parse(content)
    operators = [one for subgraph in model.subgraphs for one in subgraph.operators]
    is_micro = _is_for_tflm(model) or any(is_decode(model, one) for one in operators)
    return MicroModel if is_micro else TFLiteModel


def _is_for_tflm(model) -> bool:
    """Such a file tells less of itself, and LiteRT refuses its single zero points."""
    told = flatbuffer.metadata(model).get(flatbuffer.METADATA)
    try:
        return json.loads(told or b"{}").get("format") == 2
    # Another's metadata, or broken.
    except (ValueError, AttributeError):
        return False


@dataclasses.dataclass(frozen=True)
class Arena:
    """The memory that TFLM takes to run a file.

    On a machine of 64-bit pointers: `persistent` is smaller on a microcontroller.

    Attributes:
        bytes: the least size that works, to 64 bytes.
        persistent: of these, what the runtime keeps for each tensor and operator. The rest is for
            what is computed on the way and, before that, for planning where it lies.
    """

    bytes: int
    persistent: int


def least_arena(content: bytes, run: bool = True) -> Arena:
    """Returns the memory that a file needs, by TFLM's own record of what it set aside; where
    planning itself takes more, by trying.

    Args:
        content: the file's bytes.
        run: whether to run it once too, on zeros: some memory is only asked for then.

    Raises:
        RuntimeError: TFLM cannot run the file.
    """
    interpreter = _started(content, _ample(content))
    for number, detail in enumerate(_ends(interpreter)[0] if run else ()):
        interpreter.set_input(np.zeros(detail["shape"], detail["dtype"]), number)
    if run:
        _invoke(interpreter)
    with silenced() as said:
        interpreter.print_allocations()
        told = said()
    total, persistent = (
        int(re.search(rf"Arena allocation {part} (\d+) bytes", told)[1])  # type: ignore[index]
        for part in ("total", "tail")
    )
    return Arena(_least_size(content, total), persistent)


def _least_size(content: bytes, start: int) -> int:
    """Returns the first multiple of `ARENA_STEP` from `start` that TFLM gets by with."""
    size = -(-start // ARENA_STEP) * ARENA_STEP
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(content)
        file.flush()
        while not _tried(file.name, size):
            size += ARENA_STEP
    return size


def runs_apart(content: bytes) -> bool:
    """Whether TFLM runs a file on zeros, in a process of its own: a damaged one may end it."""
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(content)
        file.flush()
        return _tried(file.name, _ample(content), compute=True)


def _tried(name: str, size: int, compute: bool = False) -> bool:
    if _trials().poll() is not None:
        # An interrupt reaches it too.
        _trials.cache_clear()
    trials = _trials()
    assert trials.stdin is not None
    assert trials.stdout is not None
    try:
        trials.stdin.write(f"{size} {int(compute)} {name}\n")
        trials.stdin.flush()
        answer = trials.stdout.readline().strip()
    except BaseException:
        # Its answer would be taken for that to the next question.
        trials.kill()
        _trials.cache_clear()
        raise
    if answer not in ("0", "1"):
        raise RuntimeError("The program that tries arenas has ended.")
    return answer == "1"


@functools.cache
def _trials() -> subprocess.Popen:
    """The program that tries arenas; it ends with this one."""
    program = pathlib.Path(_compat.__file__).with_name("arena_trials.py")
    # -P: the modules beside it would be imported in place of the libraries of their names.
    trials = subprocess.Popen(
        [sys.executable, "-P", str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    atexit.register(_end, trials)
    return trials


def _end(trials: subprocess.Popen) -> None:
    for pipe in (trials.stdin, trials.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    trials.wait()


def _ample(content: bytes) -> int:
    """A size that is more than enough, with nothing laid over anything else: TFLM may end the
    process in an arena that is much too small.
    """
    model = flatbuffer.parse(content)
    tensors = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors]
    sizes = [math.prod(tensor.shape) * 4 if tensor.shape is not None else 4 for tensor in tensors]
    operators = sum(len(subgraph.operators) for subgraph in model.subgraphs)
    return 2 * sum(sizes) + 1024 * (len(tensors) + operators) + 2**16


def _started(content: bytes, arena_bytes: int):
    from bmpq_tf._compat.tflite_micro import Interpreter

    with _telling_why():
        return Interpreter.from_bytes(content, arena_size=arena_bytes)


def _invoke(interpreter) -> None:
    with _telling_why():
        interpreter.invoke()


@contextlib.contextmanager
def _telling_why() -> Iterator[None]:
    """Adds to TFLM's errors what it writes on standard error."""
    with silenced() as said:
        try:
            yield
        except RuntimeError as error:
            lines = [line for line in said().splitlines() if line.strip()]
            text = f"{str(error).rstrip('.')}. {' '.join(lines[:2])}"
            raise RuntimeError(text.rstrip()) from error


def _ends(interpreter) -> tuple[list[dict], list[dict]]:
    """The inputs and outputs, in the form of LiteRT's details."""
    return _details(interpreter.get_input_details), _details(interpreter.get_output_details)


def _details(describe) -> list[dict]:
    found = []
    with hushed():
        while True:
            try:
                detail = describe(len(found))
            except (IndexError, RuntimeError):
                return found
            parameters = detail["quantization_parameters"]
            scales = parameters["scales"]
            grid = (scales[0], parameters["zero_points"][0]) if len(scales) else (0.0, 0)
            found.append({**detail, "quantization": grid})
