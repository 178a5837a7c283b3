"""Many seeds, one after the other, in processes that may crash or hang; lines of JSON."""

import collections
import contextlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from bmpq_tf.files import append_line, whole_lines

WORKER = pathlib.Path(__file__).with_name("trial_worker.py")
# A model takes half a minute on two free cores.
SECONDS = 900.0
# Graphs that were traced are never freed.
_MODELS_A_PROCESS = 20


def campaign(
    first: int, models: int, minutes: float, out: pathlib.Path | None = None
) -> Iterator[dict]:
    """Runs seeds from the first on, and yields what became of each, as plain data.

    Args:
        first: the first seed.
        models: how many.
        minutes: after which no other is started.
        out: a file of lines that results are appended to; those that it holds are not run again.
    """
    known = {} if out is None else {told["seed"]: told for told in _read(out)}
    start, worker = time.monotonic(), _Worker()
    for seed in range(first, first + models):
        if seed in known:
            yield known[seed]
            continue
        if time.monotonic() - start > 60 * minutes:
            break
        told = worker.ask(seed)
        if out is not None:
            append_line(out, json.dumps(told))
        yield told
    worker.close()


def _read(out: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in whole_lines(out)]


def findings(told: dict) -> list[dict]:
    """Returns the stages of a result that are not as they should be."""
    return [stage for stage in told["stages"] if stage["outcome"] == "finding"]


def in_words(told: dict) -> str:
    """Returns a result's findings, and the command that gives them again."""
    command = shlex.join(["python", "tools/fuzz.py", f"--seed={told['seed']}", "--models=1"])
    lines = [f"seed {told['seed']}: {', '.join(told['layers'])}; {told['options']}"]
    lines += [f"  {stage['name']}: {stage['told']}" for stage in findings(told)]
    return "\n".join([*lines, f"  again: {command}"])


def outcomes(results: list[dict]) -> dict[str, collections.Counter]:
    """Returns how often each stage ended in each way."""
    counted: dict[str, collections.Counter] = {}
    for told in results:
        for stage in told["stages"]:
            counted.setdefault(stage["name"], collections.Counter())[stage["outcome"]] += 1
    return counted


class _Worker:
    """A process for some seeds at a time; another takes its place where it ends."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._asked = 0

    def ask(self, seed: int) -> dict:
        if self._asked >= _MODELS_A_PROCESS:
            self.close()
        process = self._process = self._process or self._started()
        self._asked += 1
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()
        timer = threading.Timer(SECONDS, lambda: (late.set(), process.kill()))
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(f"{seed}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if line:
            return json.loads(line)
        code = process.wait()
        self.close()
        what = f"no end within {SECONDS:.0f} seconds" if late.is_set() else f"exit code {code}"
        stage = {"name": "process", "outcome": "finding", "told": what, "seconds": 0.0}
        return {"seed": seed, "layers": [], "options": {}, "budget": "", "stages": [stage]}

    def _started(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def close(self) -> None:
        if self._process is not None:
            # What was not sent yet finds nobody there.
            with contextlib.suppress(OSError):
                self._process.communicate()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process, self._asked = None, 0
