"""Probes LiteRT on the device that runs this: a board, a phone with Termux, anything with Python.

Needs LiteRT and NumPy and nothing else. `bundle.py` packs it with its cases into one file:

    pip install ai-edge-litert numpy
    python3 probe.pyz > table.md
"""

import importlib.metadata
import io
import json
import pathlib
import platform
import sys
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

CASES, EXPECTED = "cases.npz", "expected.json"


def _files() -> dict[str, bytes]:
    """What lies beside this program in its archive."""
    with zipfile.ZipFile(pathlib.Path(sys.argv[0])) as archive:
        return {name: archive.read(name) for name in (CASES, EXPECTED)}


def answer(content: bytes, inputs: np.ndarray, xnnpack: bool) -> np.ndarray:
    """Runs a model of one operator."""
    kinds = (OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.AUTO)
    interpreter = Interpreter(
        model_content=content, num_threads=1, experimental_op_resolver_type=kinds[xnnpack]
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], inputs)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def _is_right(arrays, number: int, kind: str, case: dict, xnnpack: bool) -> bool:
    content, inputs, expected = (
        arrays[f"{kind}{number}_{part}"] for part in ("content", "inputs", "expected")
    )
    received = answer(content.tobytes(), inputs, xnnpack).astype(np.float64)
    size = 1.0 if case["mode"] == "static" else np.abs(expected).max()
    return bool(
        np.isfinite(received).all() and np.abs(received - expected).max() / size <= case["bound"]
    )


def outcome(arrays, number: int, case: dict, xnnpack: bool) -> str:
    """Returns the cell: `right`, `narrow` (without the lowest level only), `wrong` or `-`."""
    try:
        if _is_right(arrays, number, "full", case, xnnpack):
            return "right"
        return "narrow" if _is_right(arrays, number, "narrow", case, xnnpack) else "wrong"
    except (RuntimeError, ValueError):
        return "-"


def describe() -> str:
    """Returns the device in a line: processor, what it can do, versions."""
    told = ""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("Features", "CPU part", "model name", "Hardware")):
                line = " ".join(line.split())
                told += "" if line in told else f"; {line}"
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("ai-edge-litert", "numpy")
    )
    return f"{platform.platform()}, {platform.machine()}; {versions}{told}"


def main() -> None:
    """Prints the device, its table, and what is other than on x86-64."""
    files = _files()
    table = json.loads(files[EXPECTED])
    arrays = np.load(io.BytesIO(files[CASES]), allow_pickle=False)
    print(describe(), "\n")
    print(f"| {' | '.join(table['columns'])} |\n|{' --- |' * len(table['columns'])}")
    departed = []
    for row in table["rows"]:
        cells = [outcome(arrays, case["number"], case, case["xnnpack"]) for case in row["cells"]]
        print(f"| {' | '.join([*row['key'], *cells])} |", flush=True)
        for cell, case in zip(cells, row["cells"], strict=True):
            # A wrong kernel's answer depends on memory, and may be right by chance.
            if cell != case["told"] and (case["told"], cell) != ("wrong", "right"):
                where = "" if case["xnnpack"] else ", no XNNPACK"
                departed.append(
                    f"{', '.join(row['key'])}, int{case['bits']}{where}: {case['told']} on x86-64, "
                    f"{cell} here"
                )
    print("\n" + ("\n".join(departed) or "Everything is as on x86-64."))


if __name__ == "__main__":
    main()
