"""What runtimes and litert-quantizer raise, as errors that name a layer and a way out."""

import contextlib
import re
import types
from collections.abc import Iterator

import numpy as np

from bmpq_tf.export.converter import origin
from bmpq_tf.export.errors import ConversionError, ExportError, first_line
from bmpq_tf.export.state import ExportState
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.decode import is_decode
from bmpq_tf.export.tflite.interpreter import TFLiteModel
from bmpq_tf.export.verification.error_localization import coarse_biases
from bmpq_tf.export.verification.inputs import OPEN_SIZE

# What callers are told as it is: it was raised for them, or is about their machine.
_MEANT = (ExportError, ConversionError, OSError, ImportError, MemoryError, Warning)
_ARGUMENTS = (ValueError, TypeError)
_RUNTIMES, _QUANTIZER = ("ai_edge_litert", "tflite_micro"), "litert_quantizer"
# "Node number 3 (ADD) failed to prepare.", and TFLM's "Node RSQRT (number 3f) failed to invoke".
_NODE = re.compile(r"Node (?:number (\d+) \((\w+)\)|(\w+) \(number (\d+)f?\))")
_TENSOR = re.compile(r"Tensor (\d+) has invalid")
# XNNPACK takes no sums whose steps are so many of the output's.
_TOO_COARSE = 256.0
_WAY_OUT = (
    "Build that part from other Keras layers, or make it no part of the model and compute it "
    "outside of the file."
)


@contextlib.contextmanager
def in_words(state: ExportState) -> Iterator[None]:
    """Turns what comes out of the depths of an export into an `ExportError` with that as its cause.

    Raises:
        ExportError: a runtime, litert-quantizer or the export itself failed.
    """
    try:
        yield
    except _MEANT:
        raise
    except Exception as error:
        modules = _modules(error.__traceback__)
        roots = [module.split(".")[0] for module in modules]
        is_run = roots[-1] in _RUNTIMES or any(one.endswith(".comparison") for one in modules)
        if is_run:
            _check_sizes(state, error)
        if _QUANTIZER in roots:
            what = f"litert-quantizer fails on model '{state.model.name}'"
        elif "bmpq_tf.export.micro.runtime" in modules:
            what = "TFLM does not run the file"
        elif is_run:
            if roots[-1] not in ("bmpq_tf", *_RUNTIMES) or _is_argument(error, roots):
                raise
            what = "LiteRT does not run the file"
        elif roots[-1] != "bmpq_tf" or isinstance(error, _ARGUMENTS):
            # An argument, or what the data that were given raised themselves.
            raise
        else:
            what = f"The export of model '{state.model.name}' fails"
        raise ExportError(
            f"{what}: {_told(error)} {_culprit(state, error)} "
            f"Nothing was written to '{state.path}'."
        ) from error


def _check_sizes(state: ExportState, error: Exception) -> None:
    """Raises ValueError where the inputs that a model failed on were drawn at sizes of our own."""
    open_sizes = any(None in tensor.shape[1:] for tensor in state.model.inputs)
    given = (state.options.verify_with, state.options.calibrate_with)
    if open_sizes and all(data is None for data in given):
        raise ValueError(
            f"Model '{state.model.name}' leaves sizes open, and does not run on the random inputs "
            f"of {OPEN_SIZE} that were taken for them: {_told(error)} Give verify_with= inputs "
            "like those that it will meet, or fix the sizes with input_shapes=. Nothing was "
            f"written to '{state.path}'."
        ) from error


def _is_argument(error: Exception, roots: list[str]) -> bool:
    return isinstance(error, _ARGUMENTS) and roots[-1] == "bmpq_tf"


def _modules(traceback: types.TracebackType | None) -> list[str]:
    """The modules that an error came through, the innermost last."""
    found = []
    while traceback is not None:
        found.append(str(traceback.tb_frame.f_globals.get("__name__", "")))
        traceback = traceback.tb_next
    return found


def _told(error: Exception) -> str:
    """An error's first line; LiteRT does not part its sentences."""
    line = re.sub(r"(?<=[^\s])\.?(?=Node number|Tensor \d)", ". ", first_line(error))
    return line if isinstance(error, RuntimeError) else f"{type(error).__name__}: {line}"


def _culprit(state: ExportState, error: Exception) -> str:
    """The layer that a failure is about, and what to do."""
    content = state.integer_content or state.content or _float_file(state)
    names = _tensors_named(content, _told(error)) if content else []
    if not names and content:
        # XNNPACK's nodes are many operators in one; the built-in kernels say which of them it is.
        names = _tensors_named(content, _without_xnnpack(content))
    for name in names:
        layer = origin.found(state.model, name)
        if layer is not None:
            return f"It is layer {origin.described(layer)}. {origin.way_out(layer) or _WAY_OUT}"
    if names:
        return f"It is the operator that gives '{names[0]}'. {_WAY_OUT}"
    # What fails may be what a look at the biases needs too.
    with contextlib.suppress(Exception):
        if content and (told := coarse_biases(content, _TOO_COARSE)):
            return told
    return (
        "Nothing tells which layer it is: export smaller parts of the model to find it, and please "
        "report it with a model that shows it."
    )


def _float_file(state: ExportState) -> bytes:
    file = getattr(state, "file", None)
    with contextlib.suppress(Exception):
        return flatbuffer.serialised(file) if file is not None else b""
    return b""


def _tensors_named(content: bytes, line: str) -> list[str]:
    """The tensor that a runtime's message is about, or the results of the operator."""
    model = flatbuffer.parse(content)
    if found := _TENSOR.search(line):
        tensors = model.subgraphs[0].tensors
        return [flatbuffer.tensor_name(one) for one in tensors[int(found[1]) :][:1]]
    if (found := _NODE.search(line)) is None:
        return []
    position, builtin = int(found[1] or found[4]), found[2] or found[3]
    # A microcontroller's file has operators that unpack kernels between those of the int8 file.
    operators = [one for one in model.subgraphs[0].operators if not is_decode(model, one)]
    for operator in operators[max(0, position) :: -1]:
        if flatbuffer.schema_name(flatbuffer.builtin_of(model, operator)) == builtin:
            tensors = model.subgraphs[0].tensors
            return [flatbuffer.tensor_name(tensors[index]) for index in operator.outputs]
    return []


def _without_xnnpack(content: bytes) -> str:
    try:
        model = TFLiteModel(content, xnnpack=False)
        model([np.zeros(one["shape"], one["dtype"]) for one in model.inputs])
    except Exception as error:
        return _told(error)
    return ""
