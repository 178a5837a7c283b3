"""What TFLM, the runtime of microcontrollers, does with static int8 operators whose weights are
int8, int4, or a table that `DECODE` unpacks.
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable

import numpy as np

from bmpq_research import tflite_builder
from bmpq_research.runtime_probe import one_operator, probe, weighted_operators
from bmpq_tf._compat.litert import schema
from bmpq_tf.export.micro import forms, packing, runtime
from bmpq_tf.export.tflite import flatbuffer

FORMS = ("int8", "int4", *(f"DECODE {bits}" for bits in range(1, 8)))
COLUMNS = ("operator", "scales", *FORMS)


def probe_micro(operators: Iterable[str] | None = None) -> list[probe.Seen]:
    """Runs every operator that has integer weights in every form; `mode` is the form."""
    found = []
    for operator in weighted_operators.OPERATORS:
        if "static" in operator.modes and (operators is None or operator.name in operators):
            for granularity in probe.GRANULARITIES:
                found += [judge(operator, granularity, form) for form in FORMS]
    return found


def judge(
    operator: weighted_operators.Operator,
    granularity: str,
    form: str,
    change: Callable[[bytes], bytes] = lambda content: content,
) -> probe.Seen:
    """Runs one case and compares it with NumPy.

    Args:
        operator: of `weighted_operators.OPERATORS`.
        granularity: one scale a `"channel"` or a `"tensor"`.
        form: of `FORMS`.
        change: what to do to the file before it runs.
    """
    bits = {"int8": 8, "int4": 4}.get(form) or int(form.split()[1])
    case = _case(operator, bits, granularity, form)
    try:
        received = runtime.MicroModel(change(case.content))([case.inputs])[0]
    except RuntimeError:
        return probe.Seen(operator.name, bits, granularity, form, "TFLM", "refused", None)
    step = _output_step(case.content)
    apart = float(np.abs(received / step - case.expected).max())
    outcome = "right" if apart <= probe.BOUNDS["static"] + 1e-3 else "wrong"
    return probe.Seen(operator.name, bits, granularity, form, "TFLM", outcome, apart)


def _case(operator, bits: int, granularity: str, form: str) -> one_operator.Case:
    stored = bits if form == "int4" else 8
    case = one_operator.build(operator, stored, granularity, "static", levels=bits)
    if not form.startswith("DECODE"):
        return case
    model = flatbuffer.parse(case.content)
    table = forms.Packed("decode", bits, (-(2 ** (bits - 1)),))
    packing.pack(model, {"weights": table})
    return dataclasses.replace(case, content=flatbuffer.serialised(model))


def _output_step(content: bytes) -> float:
    model = flatbuffer.parse(content)
    subgraph = model.subgraphs[0]
    return float(subgraph.tensors[subgraph.outputs[0]].quantization.scale[0])


def rows(found: list[probe.Seen]) -> list[tuple[str, ...]]:
    """Returns the table's cells, a row for each operator and granularity."""
    table: dict[tuple[str, str], dict[str, str]] = {}
    for seen in found:
        outcome = "-" if seen.outcome == "refused" else seen.outcome
        table.setdefault((seen.operator, seen.granularity), {})[seen.mode] = outcome
    return [(*key, *(cells[form] for form in FORMS)) for key, cells in table.items()]


def operators_of_the_runtime() -> set[str]:
    """Returns the builtins that TFLM's interpreter knows.

    Each is asked for in a process of its own, since some end it on a model that makes no sense.
    """
    from bmpq_tf._compat.tflite_micro import Interpreter

    return {
        name
        for name, code in vars(schema.BuiltinOperator).items()
        if isinstance(code, int) and "Didn't find op" not in _said(Interpreter, _senseless(code))
    }


def _senseless(code: int) -> bytes:
    file = tflite_builder.Builder()
    grid = (np.float32([0.1]), np.int64([0]), 0)
    ends = [file.tensor(name, [1, 4], flatbuffer.INT8, grid=grid) for name in ("in", "out")]
    file.operator(code, ends[:1], ends[1:], ("", {}))
    return file.content(ends[:1], ends[1:])


def _said(interpreter, content: bytes) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, 2)
        try:
            interpreter.from_bytes(content, arena_size=2**16)
        except RuntimeError:
            pass
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    os.waitpid(child, 0)
    return said


if __name__ == "__main__":
    sys.stdout.write("\n".join(sorted(operators_of_the_runtime())) + "\n")
