"""The house: what is public, what the wheel holds, how long a function may be, what an import
costs.
"""

import ast
import dataclasses
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import zipfile

import pytest

import bmpq_tf
from bmpq_research.experiments.train_config import IN_GRIDS, TrainConfig

pytestmark = pytest.mark.quick

ROOT = pathlib.Path(__file__).parent.parent
MODULES = sorted((ROOT / "bmpq_tf").rglob("*.py"))
_IMPORT = """
import time
import keras, tensorflow
before = time.perf_counter()
import bmpq_tf
print(time.perf_counter() - before)
"""


def test_dir_shows_the_api_and_every_name_is_there():
    assert dir(bmpq_tf) == sorted(bmpq_tf.__all__)
    assert all(getattr(bmpq_tf, name) is not None for name in bmpq_tf.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'slots'"):
        _ = bmpq_tf.slots


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_and_its_functions_stay_short(path):
    text = path.read_text()
    assert text.count("\n") <= 300, f"{path} is longer than 300 lines."
    functions = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    long = {node.name: _lines_of_code(node) for node in functions if _lines_of_code(node) > 60}
    assert not long, f"These functions are longer than 60 lines: {long}"


def _lines_of_code(node) -> int:
    """The lines of a function without its docstring, which may say more than the code."""
    documented = ast.get_docstring(node) is not None
    docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if documented else 0
    return node.end_lineno - node.lineno + 1 - docstring


def test_examples_and_commands_name_what_is_there():
    for path in (ROOT / "examples").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith(("bmpq_tf.", "bmpq_research"))], (
                f"{path.name} uses what is internal."
            )


@pytest.mark.slow
def test_importing_takes_a_tenth_of_a_second_more_than_keras_and_tensorflow():
    def seconds() -> float:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT], capture_output=True, text=True, timeout=120, check=True
        )
        return float(done.stdout.split()[-1])

    assert statistics.median(seconds() for _ in range(3)) <= 0.1


@pytest.mark.slow
def test_the_wheel_holds_the_library_and_nothing_else(tmp_path):
    # From a copy: setuptools also packs what an earlier build left in build/.
    source = tmp_path / "source"
    shutil.copytree(ROOT / "bmpq_tf", source / "bmpq_tf")
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert sorted(held) == sorted(
        [*(str(path.relative_to(ROOT)) for path in MODULES), "bmpq_tf/py.typed"]
    )


def test_the_training_script_has_a_flag_for_every_setting_of_a_run():
    """`make demo` is this script."""
    script = (ROOT / "tools" / "train.py").read_text()
    defined = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', script))
    settings = {field.name for field in dataclasses.fields(TrainConfig)}
    assert settings - defined == set(IN_GRIDS)
