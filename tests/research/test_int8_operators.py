"""What the runtimes do with operators between int8 tensors equals the copy in the docs, and integer
files hold only what is right.
"""

import pathlib

import pytest

pytest.importorskip("tflite_micro")

from bmpq_research.runtime_probe import int8_operators, int8_probe, probe
from bmpq_research.runtime_probe.table import documented
from bmpq_tf._compat.litert import schema
from bmpq_tf.emulation import root as emulated
from bmpq_tf.export.integer import lookup_tables, unlisted_operators

HAS_ARM = emulated.is_ready(emulated.default_root())
RUNTIMES = (*int8_probe.RUNTIMES, *(probe.ARM_RUNTIMES if HAS_ARM else ()))
DOCS = pathlib.Path(__file__).parents[2] / "docs" / "runtime_matrix.md"


@pytest.fixture(scope="module")
def seen():
    return int8_probe.probe_all(RUNTIMES)


@pytest.fixture(scope="module")
def outcomes(seen):
    return {(one.operator.split()[0], one.runtime): one.outcome for one in seen}


def test_the_docs_hold_what_the_runtimes_do(seen):
    columns = int8_probe.COLUMNS[: 1 + len(int8_probe.RUNTIMES)]
    told = documented(DOCS.read_text(), columns)
    assert told == [row[: len(columns)] for row in int8_probe.rows(seen)]


def names(builtins):
    known = {operator.builtin for operator in int8_operators.OPERATORS}
    codes = {code: name for name, code in vars(schema.BuiltinOperator).items() if code in known}
    return {codes[builtin] for builtin in builtins if builtin in codes}


def test_what_is_written_alone_is_right(outcomes):
    written = names(
        {*unlisted_operators.CARRIES, *lookup_tables.ALONE}
        # Rewritten before, and known to be products there.
        - {schema.BuiltinOperator.NEG, schema.BuiltinOperator.SQUARE}
    )
    assert {"PRELU", "MINIMUM", "LESS", "LOG_SOFTMAX", "REVERSE_V2", "EXP"} <= written
    litert = [runtime for runtime in RUNTIMES if runtime != "TFLM"]
    wrong = {name for name in written for runtime in litert if outcomes[name, runtime] != "right"}
    assert not wrong
    unary = names(lookup_tables.ALONE_IN_TFLM) - {"NEG", "SQUARE"}
    # A microcontroller's files have no SELECT; the list of TFLM's operators says so.
    assert {name for name in unary if outcomes[name, "TFLM"] != "right"} <= {"SELECT"}


def test_a_table_is_made_of_what_is_right_everywhere(seen):
    parts = {"CAST from int8 to int32", "ADD of int32", "GATHER from a constant"}
    found = {(one.operator, one.outcome) for one in seen if one.operator in parts}
    assert found == {(part, "right") for part in parts}


def test_the_traps_are_there_to_be_avoided(outcomes):
    """If this fails a release mended a kernel: look at rewrites.py again."""
    assert outcomes["NEG", "LiteRT"] == outcomes["DIV", "LiteRT"] == "wrong"
    assert outcomes["RELU6", "TFLM"] == "wrong"
