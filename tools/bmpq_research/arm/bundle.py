"""Packs the probe for a device into one file that Python runs: program, models, inputs, answers."""

import io
import json
import os
import pathlib
import zipapp
from collections.abc import Sequence
from tempfile import TemporaryDirectory

import numpy as np

from bmpq_research.arm import device
from bmpq_research.runtime_probe import one_operator, probe, table
from bmpq_tf.files import replacing

_ROW_CELLS = [(bits, xnnpack) for xnnpack in (True, False) for bits in probe.WIDTHS]


def write(path: str | os.PathLike, told: Sequence[tuple[str, ...]]) -> None:
    """Writes the archive.

    Args:
        path: of the .pyz file.
        told: the matrix's rows as docs/runtime_matrix.md tells them, which the device compares
            with.
    """
    by_key = {row[:3]: row[3:] for row in told}
    arrays, lines = {}, {}
    for number, (operator, bits, granularity, mode) in enumerate(probe.cases()):
        for kind, narrow in (("full", False), ("narrow", True)):
            case = one_operator.build(operator, bits, granularity, mode, narrow=narrow)
            arrays[f"{kind}{number}_content"] = np.frombuffer(case.content, np.uint8)
            arrays[f"{kind}{number}_inputs"] = case.inputs
            arrays[f"{kind}{number}_expected"] = case.expected
        key = (operator.name, mode, granularity)
        for place, (width, xnnpack) in enumerate(_ROW_CELLS):
            if width == bits:
                lines.setdefault(key, [{}] * len(_ROW_CELLS))[place] = {
                    "number": number,
                    "bits": bits,
                    "mode": mode,
                    "bound": probe.BOUNDS[mode],
                    "xnnpack": xnnpack,
                    "told": by_key[key][place],
                }
    rows = [{"key": key, "cells": cells} for key, cells in lines.items()]
    stored = io.BytesIO()
    np.savez_compressed(stored, **arrays)
    with TemporaryDirectory() as folder, replacing(path) as temporary:
        made = pathlib.Path(folder)
        (made / "__main__.py").write_text(pathlib.Path(device.__file__).read_text())
        (made / device.CASES).write_bytes(stored.getvalue())
        columns = table.COLUMNS[: 3 + len(_ROW_CELLS)]
        (made / device.EXPECTED).write_text(json.dumps({"columns": columns, "rows": rows}))
        zipapp.create_archive(made, temporary, "/usr/bin/env python3")
