"""What the runtimes write by themselves stays off a command's screen, and a crash shows it."""

import os
import subprocess
import sys

import keras
import pytest
import tensorflow as tf
from conftest import compiled

import bmpq_tf
from bmpq_tf import progress, runtime_messages

pytestmark = pytest.mark.apart

XNNPACK = "INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
NOISE = (
    XNNPACK,
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1764459183.123456   12345 port.cc:153] oneDNN custom operations are on.",
    "W0000 00:00:1764459183.123456   12345 flatbuffer_export.cc:365] Ignored output_format.",
    "2026-11-29 23:32:59.123456: I external/local_xla/cudart_stub.cc:32] Could not find cuda.",
)
NEWS = (
    "ERROR: tensorflow/lite/kernels/conv.cc:350 bias type 0 is wrong",
    "F0000 00:00:1764459183.123456   12345 file.cc:12] Check failed: rows == columns",
    "E0000 00:00:1764459183.123456   12345 file.cc:12] out of memory",
    "free(): invalid pointer",
    "",
)
_START = f"""
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("messages", {runtime_messages.__file__!r})
messages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(messages)
messages.start()
def native(*lines):
    for line in lines:
        os.write(2, line.encode() + b"\\n")
"""


def said(program: str, **environment) -> tuple[int, list[str]]:
    """The exit code and standard error of a program that has a filter."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TF_CPP_MIN_LOG_LEVEL", runtime_messages.VARIABLE)
    }
    done = subprocess.run(
        [sys.executable, "-c", _START + program],
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean, **environment},
    )
    return done.returncode, done.stderr.splitlines()


def test_notes_are_dropped_and_everything_else_is_shown_in_its_order():
    program = f"native(*{[*NOISE, *NEWS, *NOISE]!r}); print('ours', file=sys.stderr)"
    code, lines = said(program)
    assert code == 0
    assert sorted(lines) == sorted([*NEWS, "ours"])
    assert [line for line in lines if line != "ours"] == list(NEWS)


@pytest.mark.parametrize(
    "environment", [{runtime_messages.VARIABLE: "1"}, {"TF_CPP_MIN_LOG_LEVEL": "0"}]
)
def test_who_asks_for_them_sees_them(environment):
    assert said(f"native(*{NOISE!r})", **environment) == (0, list(NOISE))


@pytest.mark.parametrize("end", ["os.abort()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_crash_shows_what_was_dropped(end):
    program = f"""
native({XNNPACK!r})
with messages.held():
    native("loc(fused): error: of the converter")
    {end}
"""
    code, lines = said(program)
    assert code < 0
    assert lines == [
        "What the runtimes said before the end:",
        XNNPACK,
        "loc(fused): error: of the converter",
    ]


def test_a_crash_shows_what_was_kept_in_a_file_and_takes_the_file_away(tmp_path):
    path = tmp_path / "kept"
    for end, expected in (
        ("os.abort()", ["What the runtimes said before the end:", "why"]),
        ("", []),
    ):
        program = f"""
with open({str(path)!r}, "w") as file, messages.kept_in({str(path)!r}):
    file.write("why\\n")
    file.flush()
    {end}
"""
        assert said(program)[1] == expected
        assert path.exists() is not bool(expected)


def test_progress_is_shown_beside_a_filter():
    program = f"""
import time
spec = importlib.util.spec_from_file_location("progress", {progress.__file__!r})
shown = importlib.util.module_from_spec(spec)
sys.modules["progress"] = shown
spec.loader.exec_module(shown)
native({XNNPACK!r})
shown.SECONDS = 0.0
with shown.shown("Working"):
    time.sleep(0.5)
"""
    master, slave = os.openpty()
    done = subprocess.run(
        [sys.executable, "-c", _START + program],
        stderr=slave,
        timeout=60,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(slave)
    told = os.read(master, 65536).decode()
    os.close(master)
    assert done.returncode == 0
    assert "Working" in told
    assert "XNNPACK" not in told


def test_what_is_held_is_shown_in_a_crash_alone_and_what_follows_always():
    program = f"""
with messages.held():
    native("a page of the converter's")
native({NEWS[0]!r})
raise SystemExit(3)
"""
    assert said(program) == (3, [NEWS[0]])


def test_an_unfinished_line_and_a_process_of_its_own_are_shown_too():
    program = """
import subprocess
os.write(2, b"no end of line")
subprocess.run([sys.executable, "-c", "import sys; print('a child', file=sys.stderr)"])
"""
    assert said(program) == (0, ["no end of linea child"])


def test_an_error_of_pythons_keeps_its_traceback():
    code, lines = said("native('INFO: noise'); raise RuntimeError('ours')")
    assert (code, lines[0], lines[-1]) == (
        1,
        "Traceback (most recent call last):",
        "RuntimeError: ours",
    )
    assert "INFO: noise" not in lines


def test_kerass_notice_of_shuffle_is_not_shown_and_other_warnings_are():
    model = compiled(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))
    data = tf.data.Dataset.from_tensors((tf.zeros((4, 2)), tf.zeros((4,))))
    with pytest.warns(UserWarning, match="shuffle") as caught:
        model.fit(data, verbose=0)
    program = f"""
import warnings
for text in ({str(caught[0].message)!r}, "ours"):
    warnings.warn(text)
"""
    _, (line, *_) = said(program)
    assert line.endswith("UserWarning: ours")


@pytest.mark.parametrize(
    ("words", "program", "expected"),
    [
        (["python", "/usr/bin/bmpq-export", "model.keras"], "/usr/bin/bmpq-export", True),
        (["python", "-m", "bmpq_tf.cli.inspect", "x"], "-m", True),
        (["python", "-m", "pytest", "-m", "not slow"], "-m", False),
        (["python", "mine.py", "bmpq-export"], "mine.py", False),
    ],
)
def test_only_commands_are_kept_quiet(words, program, expected, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", words)
    monkeypatch.setattr(sys, "argv", [program, *words[2:]])
    assert runtime_messages.is_command() is expected


def test_importing_the_library_changes_nothing_about_standard_error():
    program = "import bmpq_tf, os; print(os.environ.get('TF_CPP_MIN_LOG_LEVEL'), os.fstat(2)[:3])"
    clean = {name: v for name, v in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    root = os.path.dirname(os.path.dirname(bmpq_tf.__file__))
    with open(os.devnull, "w") as null:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=null,
            text=True,
            timeout=120,
            env={**clean, "PYTHONPATH": root},
        )
        assert done.stdout == f"None {os.fstat(null.fileno())[:3]}\n"
