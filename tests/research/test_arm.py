"""Files and the probe on ARM: what counts as the same, and the probe that a device runs."""

import dataclasses
import shutil
import subprocess
import sys

import pytest
import zoo
from conftest import needs_arm64, small_model
from test_runtime_probe import DOCS

from bmpq_research.arm import bundle, files, instructions
from bmpq_research.runtime_probe import table
from bmpq_tf.emulation import root

SAME = files.Answers("model", "integer", 100, 2.0, 0.0, 0.0, 0.03, 0.01, 1.0)


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"largest": 1e-3, "rms": 1e-6}, False),
        ({"plain_rms": 0.3}, False),
        ({"plain_largest": float("nan")}, False),
        ({"scale": 0.0}, False),
        ({"mode": "latency", "largest": 1e-3, "rms": 1e-3}, True),
        ({"mode": "latency", "rms": 0.2}, False),
        ({"mode": "size", "largest": 1e-4, "plain_largest": 1e-4}, True),
        ({"mode": "size", "largest": 1e-3, "plain_largest": 1e-4}, False),
    ],
)
def test_integers_are_equal_and_floats_within_the_limits_of_parity(changes, holds):
    assert dataclasses.replace(SAME, **changes).holds is holds


@needs_arm64
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["size", "latency", "integer"])
def test_a_file_answers_on_arm_as_here(mode):
    model = small_model()
    batch, _ = zoo.example_batch(model, 4)
    found = files.compare("small", files.prepared(model, [batch]), [batch], mode)
    assert found.holds


@pytest.mark.slow
def test_the_probe_for_a_device_needs_one_file_and_finds_what_the_docs_tell(tmp_path):
    path = tmp_path / "probe.pyz"
    bundle.write(path, table.documented(DOCS.read_text()))
    said = probe_printed(path)
    assert "Everything is as on x86-64." in said
    rows = [line for line in said.splitlines() if line.startswith("| CONV_2D 3x3 | dynamic |")]
    assert rows[0].startswith("| CONV_2D 3x3 | dynamic | channel | wrong | right | right |")
    told = [list(row) for row in table.documented(DOCS.read_text())]
    told[0][3] = "-"
    bundle.write(path, [tuple(row) for row in told])
    assert "CONV_2D 3x3, weight_only, channel, int2: - on x86-64, right here" in probe_printed(path)


def probe_printed(path):
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=300, cwd=path.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_arm64
@pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-as") is None,
    reason="there is no assembler; apt-get install binutils-aarch64-linux-gnu",
)
def test_the_emulators_dot_products_are_right_and_what_its_processor_lacks_is_said():
    dot, matrix = (
        next(one for one in instructions.INSTRUCTIONS if one.name == name)
        for name in ("sdot", "smmla")
    )
    emulator = [str(root.ready_root() / root.QEMU), "-cpu", root.CPU]
    assert instructions.wrong_share(dot, emulator, "aarch64-linux-gnu-") == 0
    unsigned = dataclasses.replace(dot, name="udot")
    assert instructions.wrong_share(unsigned, emulator, "aarch64-linux-gnu-") > 0.5
    with pytest.raises(RuntimeError, match="'smmla' ended with code"):
        instructions.wrong_share(matrix, emulator, "aarch64-linux-gnu-")
