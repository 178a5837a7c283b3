"""What TFLM does equals the copy in the docs, and the exporter takes only what was seen to work."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("tflite_micro")

from bmpq_research.runtime_probe import micro, weighted_operators
from bmpq_research.runtime_probe.table import documented
from bmpq_tf.export.micro.operators import DECODED, NATIVE_INT4, OPERATORS
from bmpq_tf.export.tflite import flatbuffer

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def seen():
    return micro.probe_micro()


def test_the_docs_hold_what_tflm_does(seen):
    page = (ROOT / "docs" / "runtime_matrix.md").read_text()
    assert documented(page, micro.COLUMNS) == micro.rows(seen)


def test_the_exporter_packs_only_what_is_right(seen):
    builtins = {operator.name: operator.builtin for operator in weighted_operators.OPERATORS}
    for one in seen:
        builtin = builtins[one.operator]
        by_channel = one.granularity == "channel"
        if one.mode == "int4" and builtin in NATIVE_INT4:
            refused = by_channel and one.operator.startswith("FULLY_CONNECTED")
            assert one.outcome == ("refused" if refused else "right"), one
        # An integer file has one scale for a BATCH_MATMUL.
        if one.mode.startswith("DECODE") and builtin in DECODED:
            wrong = by_channel and one.operator == "BATCH_MATMUL"
            assert one.outcome == ("wrong" if wrong else "right"), one


def test_the_released_encoders_stride_answers_wrongly():
    """If this fails a release mended the runtime: `ancillary_data` may give the table's length."""
    operator = next(one for one in weighted_operators.OPERATORS if one.name == "CONV_2D 3x3")

    def with_stride(content):
        model = flatbuffer.parse(content)
        for buffer in model.buffers:
            if buffer.data is not None and len(buffer.data) == 16 + 8:
                buffer.data = np.array(buffer.data)
                buffer.data[6] = 8
        return flatbuffer.serialised(model)

    assert micro.judge(operator, "channel", "DECODE 3", with_stride).outcome == "wrong"


@pytest.mark.apart
def test_the_list_of_operators_is_the_runtimes():
    line = [sys.executable, "-m", "bmpq_research.runtime_probe.micro"]
    done = subprocess.run(
        line, cwd=ROOT / "tools", capture_output=True, text=True, timeout=300, check=True
    )
    found = set(done.stdout.split())
    # Of those that keep state or are written by nobody here, none is listed.
    unlisted = {*("ASSIGN_VARIABLE", "CALL_ONCE", "CUSTOM", "IF", "READ_VARIABLE", "VAR_HANDLE")}
    assert found - unlisted == OPERATORS
