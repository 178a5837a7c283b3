"""The scripts of examples/ as their reader runs them: a table of widths, a file, and what it is
worth, told last.
"""

import pathlib
import re
import subprocess
import sys

import pytest

import bmpq_tf

ROOT = pathlib.Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
# By script: kernels that its table shows, and the least compression and the least that the file's
# own figure may be (for an error, the most).
EXPECTED = {
    "detection": ({"boxes/kernel": 8}, 8, ("recall", 0.8)),
    "distillation": ({}, 12, ("accuracy", 0.93)),
    "own_model": ({}, 10, None),
    "segmentation": ({}, 8, ("mean IoU", 0.8)),
    "subclassed_model": ({}, 10, ("accuracy", 0.93)),
    "text_classifier": ({}, 8, ("accuracy", 0.8)),
    "time_series": ({}, 5, ("error", 0.02)),
}


def lines_of(script: pathlib.Path, folder: pathlib.Path, *flags: str) -> list[str]:
    """What a script prints, in a folder that is not the checkout."""
    done = subprocess.run(
        [sys.executable, str(script), *flags],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def last(pattern: str, lines: list[str]) -> re.Match:
    """The last line that has a pattern."""
    found = [match for match in (re.search(pattern, line) for line in lines) if match]
    assert found, f"no line has {pattern!r}:\n" + "\n".join(lines)
    return found[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_ends_in_a_file_that_is_as_good_as_it_says(name, tmp_path):
    pytest.importorskip("sklearn")
    pinned, compression, figure = EXPECTED[name]
    lines = lines_of(ROOT / "examples" / f"{name}.py", tmp_path, "--out=there/model.tflite")
    assert float(last(r"([\d.]+)x fewer parameter bits", lines)[1]) >= compression
    for kernel, bits in pinned.items():
        assert last(rf"{kernel} +│ +[\d,]+ │ +(\d+)", lines)[1] == str(bits)
    file = bmpq_tf.inspect_tflite(tmp_path / "there" / "model.tflite")
    assert last(r"there/model.tflite: ([\d,]+) bytes", lines)[1] == f"{file.bytes:,}"
    assert not file.custom_operators
    if figure:
        kind, bound = figure
        before = float(last(rf"float32: .*{kind} ([\d.]+)", lines)[1])
        after = float(last(rf"there/model.tflite: .*{kind} ([\d.]+)", lines)[1])
        if kind == "error":
            # Activations of 8 bits cost more than all the narrow weights do.
            eight = float(last(rf"there/model_8bit.tflite: .*{kind} ([\d.]+)", lines)[1])
            assert max(before, after) < bound
            assert eight > 1.3 * after
        else:
            assert before > bound < after > before - 0.05


@pytest.mark.slow
def test_the_loop_of_ones_own_ends_in_a_table(tmp_path):
    pytest.importorskip("sklearn")
    lines = lines_of(ROOT / "examples" / "own_loop.py", tmp_path)
    assert float(last(r"([\d.]+)x fewer parameter bits", lines)[1]) >= 10


@pytest.mark.quick
def test_every_example_is_run_here_and_told_of_beside_them():
    table = (ROOT / "examples" / "README.md").read_text()
    for script in SCRIPTS:
        assert script.stem in EXPECTED or script.stem == "own_loop"
        assert f"[{script.name}]({script.name})" in table


@pytest.mark.quick
@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"own_model"}))
def test_an_example_is_short(name):
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) < 100
