"""Keras's own tests, run against the quantized classes."""

import pathlib
import subprocess
import sys

import pytest

from bmpq_research.keras_tests import (
    FAILS,
    PASSES,
    Outcome,
    files_of_tests,
    installed_source,
    table,
)
from bmpq_tf.layers.registry import registered

ROOT = pathlib.Path(__file__).parents[2]


def _installed():
    try:
        return files_of_tests(installed_source())
    except FileNotFoundError:
        return []


needs_tests = pytest.mark.skipif(not _installed(), reason="this Keras has no tests in its wheel")


@pytest.mark.quick
@needs_tests
def test_there_are_tests_of_every_registered_layer():
    told = "\n".join(path.read_text() for path in _installed())
    missing = [
        entry.float_class.__name__
        for entry in registered()
        if f"{entry.float_class.__name__}(" not in told
        and f"layers.{entry.float_class.__name__}," not in told
    ]
    # Keras tests cells through their layers.
    assert set(missing) <= {"LSTMCell", "GRUCell", "SimpleRNNCell", "StackedRNNCells"}


@pytest.mark.quick
def test_without_tests_it_says_where_to_find_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Received: --keras_source=.* a checkout of Keras"):
        files_of_tests(tmp_path)


@pytest.mark.quick
def test_the_table_counts_and_says_why():
    outcomes = [
        Outcome("dense", "DenseTest::test_a", PASSES),
        Outcome("dense", "DenseTest::test_b", FAILS, "LoRA"),
        Outcome("conv", "ConvTest::test_c", FAILS, "LoRA"),
    ]
    told = table(outcomes).splitlines()
    assert told[2] == "| dense | 1 | 0 | 0 | 1 | 0 |"
    assert told[4] == "| **all** | **1** | **0** | **0** | **2** | **0** |"
    assert told[-1] == "- LoRA (2): dense: test_b, conv: test_c"


@pytest.mark.slow
@pytest.mark.apart
@needs_tests
def test_kerass_tests_of_embeddings_pass_but_for_what_quantizing_changes():
    line = [sys.executable, str(ROOT / "tools/keras_tests.py"), "--files=embedding"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| embedding |"))
    passes, rounded, counted, fails, _ = (int(cell) for cell in row.split("|")[2:-1])
    assert passes + rounded + counted >= 5
    assert fails <= 2
