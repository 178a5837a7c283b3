"""The notebooks run, and what is committed of them is what they say now."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from bmpq_research import notebooks

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))

# By notebook: figures that it prints, and the range that each must be in.
EXPECTED = {
    "first_model": {
        r"read rightly: ([\d.]+)% by the file": (93, 100),
        r"([\d.]+)x fewer bits in kernels": (10, 13),
    },
    "fine_tuning": {
        r"fine_tuned.tflite: [\d,]+ bytes, ([\d.]+)% in LiteRT": (88, 100),
        r"tensor +8, 4, 3, 2 bits:.* ([\d.]+)%": (0, 60),
    },
    "keyword_spotting": {
        r"in TFLM ([\d.]+)% right": (90, 100),
        r"in TFLM: ([\d,]+) bytes of flash": (5_000, 12_000),
        r"an arena of ([\d,]+)": (5_000, 24_000),
        r"bmpq_arena_bytes = (\d+)": (5_000, 24_000),
    },
    "reading_a_report": {
        r"(?m)^file +([\d,]+) bytes": (10_000, 40_000),
        r"size .*top-1 ([\d.]+)%": (100, 100),
    },
}


def printed(notebook: dict) -> str:
    """All that a notebook printed."""
    texts = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            texts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return "\n".join(map(notebooks.text_of, texts))


def assert_as_expected(name: str, notebook: dict) -> None:
    told = printed(notebook)
    for pattern, (least, most) in EXPECTED[name].items():
        found = re.search(pattern, told)
        assert found, f"{pattern!r} is not in:\n{told}"
        assert least <= float(found[1].replace(",", "")) <= most, found[0]


def test_all_of_them_are_here():
    assert {path.stem for path in PATHS} == set(EXPECTED)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_outputs_are_committed_whole_and_small(path):
    notebook = json.loads(path.read_text())
    assert notebooks.is_fresh(notebook), f"Run python tools/run_notebooks.py {path}."
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert path.stat().st_size < 60_000
    assert not re.search(r"/(tmp|root|home|work)/|site-packages", path.read_text())
    assert_as_expected(path.stem, notebook)


def test_a_change_of_a_cell_is_noticed():
    notebook = json.loads(PATHS[0].read_text())
    notebook["cells"][0]["source"][0] += " "
    assert not notebooks.is_fresh(notebook)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_a_notebook_runs_within_two_minutes(name, tmp_path):
    assert printed(run(name, tmp_path, {**os.environ, "BMPQ_DATA_DIR": str(tmp_path)}))


@pytest.mark.slow
def test_keywords_are_spoken_where_the_recordings_are(data_dir, tmp_path):
    notebook = run("keyword_spotting", tmp_path, {**os.environ, "BMPQ_DATA_DIR": str(data_dir)})
    assert "spoken digits: 3,000 seconds" in printed(notebook)


def run(name: str, folder: pathlib.Path, environment: dict[str, str]) -> dict:
    """Runs a notebook as its command does; gives it with its outputs."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    script = str(ROOT / "tools" / "run_notebooks.py")
    done = subprocess.run(
        # Two minutes on two free cores; here others may run beside it.
        [sys.executable, script, f"{FOLDER / name}.ipynb", f"--out_dir={folder}", "--timeout=300"],
        capture_output=True,
        text=True,
        timeout=360,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    notebook = json.loads((folder / f"{name}.ipynb").read_text())
    assert notebooks.is_fresh(notebook)
    assert_as_expected(name, notebook)
    return notebook


@pytest.mark.slow
def test_a_cell_that_fails_writes_nothing_and_says_where(tmp_path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None}
    broken = {"cells": [{**cell, "source": "1 / 0"}], "metadata": {}, "nbformat": 4}
    (tmp_path / "broken.ipynb").write_text(json.dumps({**broken, "nbformat_minor": 5}))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "run_notebooks.py"), str(tmp_path / "broken.ipynb")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert json.loads((tmp_path / "broken.ipynb").read_text()) == {**broken, "nbformat_minor": 5}
