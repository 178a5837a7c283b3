"""Runs Vela, Arm's compiler for Ethos-U, and reads what it says of a file.

In a process of its own: on files that it does not expect, Vela 5.2 does not fail but crash.
"""

import collections
import csv
import importlib.metadata
import importlib.util
import io
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from collections.abc import Iterator

from bmpq_tf.export.npu.report import VelaKernel, VelaReport
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.inspection import inspect_content, operator_name, weights_by_buffer

# As Vela 5.2 names them; `tests/export/test_vela.py` compares.
ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
_PACKAGE, _MODULE = "ethos-u-vela", "ethosu"
_NAME = "model"
_HINT = (
    "It takes integers only and one example at a time: export with "
    'optimize_for="integer", io_dtype="int8", of a model with keras.Input(batch_size=1).'
)

# A table of Vela's debug database: a dictionary of texts for each row.
Rows = list[dict[str, str]]


class VelaError(RuntimeError):
    """Vela fails on a file, or says something that this bmpq_tf does not understand.

    Example:
        >>> narrow = bmpq_tf.quantize_model(float_model, (2,), pin=None)
        >>> file = bmpq_tf.export_tflite(narrow, folder / "for_a_phone.tflite")
        >>> try:
        ...     report = bmpq_tf.inspect_vela(file.path)
        ... except bmpq_tf.VelaError as error:
        ...     print(error)
        Vela ... Received: '...for_a_phone.tflite'. It takes integers only and one example ...
    """


def inspect_vela(path: str | os.PathLike, accelerator: str = "ethos-u55-128") -> VelaReport:
    """Compiles a file for an Ethos-U with Vela, and tells what becomes of it there.

    Nothing is written. `pip install 'bmpq_tf[npu]'` brings Vela.

    Args:
        path: of a `.tflite` file of integers (`optimize_for="integer"`, `io_dtype="int8"`).
        accelerator: the NPU, with its multiply-accumulates a cycle: `"ethos-u55-32"` to
            `"ethos-u85-2048"`. Vela takes its own default for the system around it.

    Returns:
        A `VelaReport`: operators on the NPU, encoded bytes by kernel, flash, SRAM, time.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: Vela is not installed.
        UnreadableFileError: it is no TFLite model or it is broken.
        ValueError: the accelerator is not known.
        VelaError: Vela fails; says why in a line.

    Example:
        >>> options = {"optimize_for": "integer", "io_dtype": "int8", "calibrate_with": images}
        >>> file = bmpq_tf.export_tflite(model, folder / "model.tflite", **options)
        >>> report = bmpq_tf.inspect_vela(file.path, "ethos-u55-128")
        >>> report.cpu_operators
        ()
    """
    if accelerator not in ACCELERATORS:
        raise ValueError(
            f"Unknown accelerator. Received: {accelerator!r}. Known: {', '.join(ACCELERATORS)}."
        )
    if importlib.util.find_spec(_MODULE) is None:
        raise ModuleNotFoundError(
            "Vela, Arm's compiler for Ethos-U, is not installed. Install it: "
            "pip install 'bmpq_tf[npu]'.",
            name=_MODULE,
        )
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No such file. Received: '{path}'.")
    content = path.read_bytes()
    # Vela would crash on a broken file.
    inspect_content(content, str(path))
    with tempfile.TemporaryDirectory() as folder:
        compiled = _run(content, accelerator, pathlib.Path(folder), path)
        try:
            return _report(flatbuffer.parse(content), accelerator, *compiled)
        except (KeyError, IndexError, ValueError) as error:
            raise VelaError(
                f"Vela {version()} reports in another form than Vela 5.2, for which bmpq_tf was "
                f"written: {error!r}. Install {_PACKAGE}>=5.2,<6."
            ) from error


def version() -> str:
    """Returns the version of the installed Vela."""
    return importlib.metadata.version(_PACKAGE)


def _run(
    content: bytes, accelerator: str, folder: pathlib.Path, path: pathlib.Path
) -> tuple[dict[str, Rows], dict[str, str], bytes]:
    """Compiles; returns Vela's debug database, its summary, and the file that it wrote."""
    source = folder / f"{_NAME}.tflite"
    source.write_bytes(content)
    options = ["--accelerator-config", accelerator, "--output-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "ethosu.vela", *options, "--enable-debug-db", str(source)],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    if done.returncode != 0:
        raise VelaError(f"{_complaint(done)} Received: '{path}'. {_HINT}")
    (summary,) = folder.glob(f"{_NAME}_summary_*.csv")
    with open(summary, newline="") as file:
        (row,) = csv.DictReader(file)
    database = _tables(folder / f"{_NAME}_debug.xml")
    return database, row, (folder / f"{_NAME}_vela.tflite").read_bytes()


def _complaint(done: subprocess.CompletedProcess) -> str:
    """What a failed Vela said, in one line."""
    if done.returncode < 0:
        return f"Vela {version()} crashed ({signal.Signals(-done.returncode).name})."
    said = done.stderr.strip()
    # Behind Python's traceback stands the error itself, over several lines.
    told = re.split(r"^\w*(?:Error|Exception): ", said, flags=re.MULTILINE)[-1]
    lines = [line.strip(" -") for line in told.splitlines() if line.strip()]
    return f"Vela {version()} failed: {'; '.join(lines) or 'it did not say why'}."


def _tables(path: pathlib.Path) -> dict[str, Rows]:
    """Reads Vela's debug database: an XML file of tables in CSV."""
    root = xml.etree.ElementTree.parse(path).getroot()
    return {
        str(table.get("name")): list(csv.DictReader(io.StringIO((table.text or "").strip())))
        for table in root.iter("table")
    }


def _report(
    model, accelerator: str, tables: dict[str, Rows], summary: dict[str, str], compiled: bytes
) -> VelaReport:
    graph = model.subgraphs[0]
    places = {row["id"]: int(row["ext_key"]) for row in tables.get("source", [])}
    on_npu = {row["optimised_id"] for row in tables.get("queue", [])}
    fused = {row["id"] for row in tables.get("group", [])}
    npu, cpu = 0, []
    for row in tables.get("perf", []):
        if row["optimised_id"] in on_npu or row["id"] in fused:
            npu += 1
        else:
            cpu.append(_operator(model, graph, places.get(row["source_id"]), row))
    sizes = dict(_constants(compiled))
    return VelaReport(
        accelerator=accelerator,
        version=version(),
        memory=f"{summary['system_config']}, {summary['memory_mode']}",
        npu_operators=npu,
        cpu_operators=tuple(cpu),
        kernels=_kernels(model, graph, tables, places),
        flash_bytes=sum(size for name, size in sizes.items() if name.startswith("read_only")),
        encoded_bytes=int(summary["total_npu_encoded_weights"]),
        command_bytes=sum(size for name, size in sizes.items() if "command_stream" in name),
        file_bytes=len(compiled),
        sram_bytes=round(float(summary["sram_memory_used"]) * 1024),
        seconds=float(summary["inference_time"]),
    )


def _operator(model, graph, place: int | None, row: dict[str, str]) -> str:
    """An operator that stays on the processor, in the file's words."""
    if place is None:
        return f"{row['operator']} '{row['name']}'"
    operator = graph.operators[place]
    output = graph.tensors[operator.outputs[0]]
    return f"{operator_name(model, operator)} '{flatbuffer.tensor_name(output)}'"


def _kernels(
    model, graph, tables: dict[str, Rows], places: dict[str, int]
) -> tuple[VelaKernel, ...]:
    """What Vela encoded, for each kernel of the file."""
    kernels = weights_by_buffer(model)
    estimates = {row["id"]: row for row in tables.get("perf", [])}
    encoded = collections.defaultdict(set)
    cycles, computing = collections.Counter(), collections.Counter()
    for row in tables.get("perf_debug", []):
        estimate = estimates[row["id"]]
        place = places.get(estimate["source_id"])
        inputs = [] if place is None else list(graph.operators[place].inputs)
        buffers = [graph.tensors[index].buffer for index in inputs if index >= 0]
        buffer = next((buffer for buffer in buffers if buffer in kernels), None)
        # An average is a convolution with weights of Vela's own.
        if buffer is not None and int(row["weight_total_bytes"] or 0):
            # What several operators read is stored once for each different order of its weights.
            encoded[buffer].add(int(row["weight_total_bytes"]))
            cycles[buffer] += int(estimate["op_cycles"])
            computing[buffer] += int(estimate["npu_cycles"])
    return tuple(
        VelaKernel(
            name=weights.name,
            count=weights.count,
            encoded_bytes=sum(encoded[buffer]) if buffer in encoded else None,
            cycles=cycles[buffer] if buffer in encoded else None,
            compute_cycles=computing[buffer] if buffer in encoded else None,
        )
        for buffer, weights in kernels.items()
    )


def _constants(compiled: bytes) -> Iterator[tuple[str, int]]:
    """The bytes of each constant tensor of the file that Vela wrote."""
    model = flatbuffer.parse(compiled)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            yield flatbuffer.tensor_name(tensor), 0 if data is None else len(data)
