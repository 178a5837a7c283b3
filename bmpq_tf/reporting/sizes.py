"""Where the bytes of a file lie, and how large the model is in other forms."""

import collections
import pathlib
from collections.abc import Mapping, Sequence

from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.export.report import ExportReport
from bmpq_tf.export.tflite.inspection import inspect_tflite
from bmpq_tf.reporting.records import Form, KernelFacts, Part

# The names by which `accuracy` and `file_bytes` know the forms that every report has.
FLOAT, INT8, KERAS, TFLITE = "float", "int8", "keras", "tflite"
_LOOKS = {"float32": "w32", "float16": "w16", "int16": "w16"}


def forms(
    kernels: Sequence[KernelFacts],
    report: ExportReport | None,
    accuracy: Mapping[str, float],
    file_bytes: Mapping[str, int],
) -> tuple[Form, ...]:
    """Returns the forms of a model, float first and ours last.

    Args:
        kernels: all of its kernels.
        report: of its file, if there is one.
        accuracy, file_bytes: what the user knows, by the names above or others.
    """
    weights = sum(kernel.weights for kernel in kernels)
    packed = -(-sum(kernel.weights * kernel.bits for kernel in kernels) // 8)
    found = [
        Form("float32", 4 * weights, file_bytes.get(FLOAT), accuracy.get(FLOAT)),
        Form("int8", weights, file_bytes.get(INT8), accuracy.get(INT8)),
    ]
    others = list(dict.fromkeys((*accuracy, *file_bytes)))
    found += [
        Form(name, None, file_bytes.get(name), accuracy.get(name))
        for name in others
        if name not in (FLOAT, INT8, KERAS, TFLITE)
    ]
    if report is None:
        return (*found, Form("trained, in Keras", packed, None, accuracy.get(KERAS), True))
    if KERAS in accuracy:
        found.append(Form("trained, in Keras", packed, None, accuracy[KERAS]))
    # What the report counts as packed leaves out the kernels that stay float.
    stored = report.packed_weight_bytes + sum(one.bytes for one in kernels if one.why_float)
    ours = Form("this file", stored, report.tflite_bytes, accuracy.get(TFLITE), True)
    return (*found, ours)


def parts_of_file(report: ExportReport) -> tuple[Part, ...]:
    """Returns what lies in a file, the whole of it; in less detail where it is gone since."""
    path = pathlib.Path(report.path)
    if not path.is_file() or path.stat().st_size != report.tflite_bytes:
        rest = report.tflite_bytes - report.packed_weight_bytes
        return (
            Part("weights of quantized kernels", report.packed_weight_bytes, "w8"),
            Part("everything else", rest, "rest"),
        )
    found = inspect_tflite(path)
    stored: collections.Counter[str] = collections.Counter()
    for one in found.weights:
        stored[one.stored] += one.bytes
    weights = [
        Part(f"weights in {'a ' * name.startswith('table')}{name}", stored[name], _look(name))
        for name in sorted(stored, key=_width)
    ]
    others = [
        Part("biases, tables and other constants", found.other_constant_bytes, "other"),
        Part("read by nothing", found.orphaned_bytes, "w16"),
    ]
    parts = [part for part in (*weights, *others) if part.bytes]
    rest = found.bytes - sum(part.bytes for part in parts)
    return (*parts, Part("structure: operators, names, scales", rest, "rest"))


def parts_of_kernels(kernels: Sequence[KernelFacts]) -> tuple[Part, ...]:
    """Returns what the kernels take at each width, of a model that was not exported."""
    taken: collections.Counter[int] = collections.Counter()
    for kernel in kernels:
        taken[kernel.bits] += kernel.bytes
    return tuple(
        Part(
            "weights in float32" if bits == FLOAT_BITS else f"weights at {bits} bits",
            taken[bits],
            f"w{bits}",
        )
        for bits in sorted(taken)
    )


def _width(stored: str) -> int:
    """The number in a type's name, such as `int4` or `table of 3 bits`."""
    return int("".join(filter(str.isdigit, stored)) or 0)


def _look(stored: str) -> str:
    width = _width(stored)
    return _LOOKS.get(stored) or (f"w{width}" if 2 <= width <= 8 else "other")
