"""Runs one-operator models in the installed runtimes and prints which weights they take, and how
fast, on an emulated ARM processor too where `bmpq-arm64` has set one up.

Each cell is what came out against NumPy: right; narrow (right only where no weight is at the lowest
level, -8 of int4); wrong (NaN included); or "-", no kernel. The number is the speed relative to the
float operator with XNNPACK, one thread.

Example:
  python tools/runtime_matrix.py --timed --markdown
"""

import dataclasses
import importlib.metadata
import json
import platform

from absl import flags
from rich.console import Console
from rich.table import Table

from bmpq_research import markdown
from bmpq_research.program import run as run_program
from bmpq_research.runtime_probe import conversions, int8_probe, lowering, probe, sixteen
from bmpq_research.runtime_probe.table import COLUMNS, rows
from bmpq_tf.emulation import root as emulated
from bmpq_tf.export.micro.operators import check_installed

flags.DEFINE_bool("timed", False, "Measure speed too: half a minute on an idle machine.")
flags.DEFINE_bool(
    "lowering", False, "Time convolutions beside fully connected layers of 8, 4 and 2 bits instead."
)
flags.DEFINE_bool("micro", False, "Run static integer models in TFLM instead.")
flags.DEFINE_bool("int8", False, "Run operators between int8 tensors instead, in TFLM too.")
flags.DEFINE_bool("conversions", False, "Convert integers into others instead, in TFLM too.")
flags.DEFINE_bool("int16", False, "Run activations of 16 bits instead, in TFLM too.")
flags.DEFINE_bool("recurrent", False, "Run recurrent layers in each form that a file may have.")
flags.DEFINE_bool("json", False, "Print everything that was seen as JSON.")
flags.DEFINE_bool("markdown", False, "Print the table of docs/runtime_matrix.md.")

LOWERING_COLUMNS = ("operator", "side or rows", "inputs", "outputs", "int8", "int4", "int2")


def versions(*names: str) -> str:
    """Returns what was probed, in a line."""
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{packages}, {platform.machine()}"


def _has_arm() -> bool:
    return emulated.is_ready(emulated.default_root())


def main() -> None:
    """Probes and prints."""
    given = flags.FLAGS
    probed = ("tflite-micro",) if given.micro else ("ai-edge-litert", "tensorflow")
    if given.int8 or given.conversions or given.int16:
        check_installed("The column of TFLM")
        probed += ("tflite-micro",)
    if given.micro:
        check_installed("--micro")
        from bmpq_research.runtime_probe import micro

        found = micro.probe_micro()
        columns, cells = micro.COLUMNS, micro.rows(found)
    elif given.int8:
        found = int8_probe.probe_all(
            (*int8_probe.RUNTIMES, *(probe.ARM_RUNTIMES if _has_arm() else ()))
        )
        cells = int8_probe.rows(found)
        columns = int8_probe.COLUMNS[: len(cells[0])]
    elif given.conversions or given.int16:
        kind = conversions if given.conversions else sixteen
        found = kind.probe_all()
        columns, cells = kind.COLUMNS, kind.rows(found)
    elif given.recurrent:
        from bmpq_research.runtime_probe import recurrent

        found = recurrent.probe_recurrent(given.timed)
        columns, cells = recurrent.COLUMNS, recurrent.rows(found)
    elif given.lowering:
        found = lowering.measure()
        columns = LOWERING_COLUMNS
        cells = [
            (one.kind, *map(str, one.shape), *(f"{one.speeds[bits]:.2f}" for bits in (8, 4, 2)))
            for one in found
        ]
    else:
        found = probe.probe(timed=given.timed)
        if _has_arm():
            found += probe.probe(runtimes=probe.ARM_RUNTIMES)
        cells = rows(found)
        columns = COLUMNS[: len(cells[0])]
    if given.json:
        plain = [dataclasses.asdict(one) for one in found]
        print(json.dumps({"versions": versions(*probed), "seen": plain}, indent=1))
    elif given.markdown:
        print(f"{versions(*probed)}\n")
        print(markdown.table(columns, cells))
    else:
        table = Table(title=versions(*probed))
        for column in columns:
            table.add_column(column)
        for row in cells:
            table.add_row(*row)
        Console().print(table)


if __name__ == "__main__":
    run_program(main)
