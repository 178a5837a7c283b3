"""Every Python block of the guides runs, each page's in order, as a reader would paste them.

A page runs in a process of its own, since it may start strategies and is a program as users have
them. A block with the title "in the environment of ..." is for another tool's environment.
"""

import importlib.util
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for folder in ("guides", "coming_from", ".")
    for path in (DOCS / folder).glob("*.md")
    if "```python" in path.read_text()
)
# What an extra brings, by page.
NEEDS = {
    "budgets.md": "keras_tuner",
    "microcontrollers.md": "tflite_micro",
    "npus.md": "ethosu",
    "report.md": "tensorboard",
    "tfmot.md": "tensorflow_model_optimization",
}
# tools/site_hooks.py shows it on the spot.
_SETUP = "This page goes on from [setup.py](setup.py): paste its code first"
_FENCE = re.compile(
    r"^(?P<indent> *)```python(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```", re.M | re.S
)


def blocks(page: pathlib.Path) -> list[str]:
    """Returns the Python of a page, block by block, after what it says to run first."""
    text = page.read_text()
    first = [(DOCS / "guides/setup.py").read_text()] if _SETUP in text else []
    return first + [
        textwrap.dedent(block["code"])
        for block in _FENCE.finditer(text)
        if 'title="in the environment of' not in block["info"]
    ]


def test_every_guide_has_code_that_runs():
    assert {path.name for path in (DOCS / "guides").glob("*.md")} <= {path.name for path in PAGES}
    assert set(NEEDS) <= {path.name for path in PAGES}


@pytest.mark.quick
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_is_python_in_the_houses_lines(page):
    for code in blocks(page):
        compile(code, page.name, "exec")
        assert max(map(len, code.splitlines())) <= 100


@pytest.mark.slow
@pytest.mark.apart
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, tmp_path):
    needed = NEEDS.get(page.name)
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    program = tmp_path / "page.py"
    program.write_text("\n\n".join(blocks(page)))
    done = subprocess.run(
        [sys.executable, program.name], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
