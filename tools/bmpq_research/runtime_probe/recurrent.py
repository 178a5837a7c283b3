"""How recurrent layers run: as one fused operator, as a loop, or step by step; with weights of 2, 4
and 8 bits, in LiteRT and in TFLM, compared with Keras.
"""

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np

from bmpq_research.runtime_probe.fused_lstm import fused
from bmpq_tf import quantize_model
from bmpq_tf.conversion.freeze import frozen
from bmpq_tf.export.converter.convert import to_float_model
from bmpq_tf.export.integer import calibration, static
from bmpq_tf.export.kernels import packing
from bmpq_tf.export.kernels.match import kernel_integers
from bmpq_tf.export.kernels.search import find_kernels
from bmpq_tf.export.kernels.storage import Container
from bmpq_tf.export.micro.runtime import MicroModel
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.interpreter import TFLiteModel
from bmpq_tf.model.kernels import model_kernels

WIDTHS = (2, 4, 8)
MODES = ("weight_only", "dynamic", "static")
FORMS = ("UNIDIRECTIONAL_SEQUENCE_LSTM", "WHILE", "step by step")
LAYERS: dict[str, Callable[..., keras.layers.RNN]] = {
    "LSTM": keras.layers.LSTM,
    "GRU": keras.layers.GRU,
    "SimpleRNN": keras.layers.SimpleRNN,
}
RUNTIMES = ("LiteRT", "LiteRT without XNNPACK", "TFLM")
COLUMNS = (
    *("layer", "form", "mode", "int2", "int4", "int8"),
    *("no XNNPACK", "TFLM, int8", "called again", "us a step"),
)
STEPS, _FEATURES, _UNITS = 20, 8, 16
# What the root mean square of the differences may be, relative to that of the answers.
_BOUNDS = {"weight_only": 1e-5, "dynamic": 0.05, "static": 0.1}
_CALLS = 20


@dataclasses.dataclass(frozen=True)
class SeenLoop:
    """What one runtime did with one recurrent layer.

    Attributes:
        layer, form, mode, bits, runtime: which.
        outcome: `"right"`, `"wrong"` or `"refused"`.
        error: the root mean square of the differences from Keras, relative to its answers'.
        repeats: whether a second call with the same inputs gives the same answers.
        microseconds: of processor time for a step, one thread, if timed.
    """

    layer: str
    form: str
    mode: str
    bits: int
    runtime: str
    outcome: str
    error: float | None = None
    repeats: bool | None = None
    microseconds: float | None = None


def probe_recurrent(timed: bool = False, layers: Iterable[str] = tuple(LAYERS)) -> list[SeenLoop]:
    """Runs every layer in every form, mode and width in every runtime that is installed."""
    runtimes = RUNTIMES if importlib.util.find_spec("tflite_micro") else RUNTIMES[:2]
    return [
        _judged(case, content, inputs, expected, runtime, timed and case[3] == 8)
        for case, content, inputs, expected in _cases(layers)
        for runtime in runtimes
        # A microcontroller's files hold int8 only, and TFLM ends the process at some others.
        if runtime != "TFLM" or case[2:] == ("static", 8)
    ]


def rows(found: Iterable[SeenLoop]) -> list[tuple[str, ...]]:
    """Returns the table's cells, a row for each layer, form and mode."""
    table: dict[tuple[str, str, str], dict[tuple[str, int], SeenLoop]] = {}
    for seen in found:
        key = (seen.layer, seen.form, seen.mode)
        table.setdefault(key, {})[seen.runtime, seen.bits] = seen
    return [(*key, *_row(cells)) for key, cells in table.items()]


def _row(cells: dict[tuple[str, int], SeenLoop]) -> Iterator[str]:
    first, second, micro = RUNTIMES
    yield from (_word(cells[first, bits]) for bits in WIDTHS)
    others = [
        f"int{bits}: {_word(cells[second, bits])}"
        for bits in WIDTHS
        if cells[second, bits].outcome != cells[first, bits].outcome
    ]
    yield "; ".join(others) or "same"
    yield _word(cells[micro, 8]) if (micro, 8) in cells else ""
    ran = [seen.repeats for seen in cells.values() if seen.repeats is not None]
    yield ("the same" if all(ran) else "other answers") if ran else "-"
    yield "/".join(
        "-" if (taken := cells[runtime, 8].microseconds) is None else f"{taken:.1f}"
        for runtime in (first, second)
    )


def _word(seen: SeenLoop) -> str:
    return "-" if seen.outcome == "refused" else seen.outcome


def _cases(layers: Iterable[str]) -> Iterator[tuple]:
    for name in layers:
        for form in FORMS if name == "LSTM" else FORMS[1:]:
            for mode in MODES:
                for bits in WIDTHS:
                    built = (
                        fused(mode, bits, STEPS, _FEATURES, _UNITS)
                        if form == FORMS[0]
                        else _converted(LAYERS[name], mode, bits, form)
                    )
                    yield (name, form, mode, bits), *built


def _converted(
    layer: Callable[..., keras.layers.RNN], mode: str, bits: int, form: str
) -> tuple[bytes, np.ndarray, np.ndarray]:
    keras.utils.set_random_seed(0)
    given = keras.Input((STEPS, _FEATURES), batch_size=1)
    answers = layer(_UNITS, return_sequences=True)(given)
    model = quantize_model(keras.Model(given, answers), (bits,), pin=None)
    inputs = np.random.default_rng(0).standard_normal((1, STEPS, _FEATURES)).astype(np.float32)
    with frozen(model) as constant:
        file = to_float_model(constant, unroll=form == "step by step")
    matches = find_kernels(file, [kernel_integers(state) for state in model_kernels(model)])
    packing.separate_buffers(file, matches)
    stored = []
    for match in matches:
        tensor = file.subgraphs[match.subgraph].tensors[match.tensor]
        name, container = flatbuffer.tensor_name(tensor), Container(bits, mode)
        stored.append((match, packing.stored_kernel(match, name, tuple(tensor.shape), container)))
    if mode == "static":
        ranges = calibration.ranges(flatbuffer.serialised(file), [[inputs]], 1)
        file, _ = static.quantize(file, stored, ranges, "float32")
    else:
        file = packing.pack(file, stored)
    return flatbuffer.serialised(file), inputs, np.asarray(model(inputs))


def _judged(case, content, inputs, expected, runtime: str, timed: bool) -> SeenLoop:
    try:
        run = (
            MicroModel(content)
            if runtime == "TFLM"
            else TFLiteModel(content, num_threads=1, xnnpack=runtime == "LiteRT")
        )
        (answers,), (again,) = run([inputs]), run([inputs])
        error = float(np.sqrt(np.square(answers - expected).mean() / np.square(expected).mean()))
    except RuntimeError:
        return SeenLoop(*case, runtime, "refused")
    taken = None
    if timed and runtime != "TFLM":
        started = time.process_time()
        for _ in range(_CALLS):
            run([inputs])
        taken = (time.process_time() - started) / _CALLS / STEPS * 1e6
    outcome = "right" if error <= _BOUNDS[case[2]] else "wrong"
    return SeenLoop(*case, runtime, outcome, error, np.array_equal(answers, again), taken)
