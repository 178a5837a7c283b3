"""Many seeds, one after the other, in processes that may crash or hang; lines of JSON."""

import collections
import json
import pathlib
import shlex
import subprocess
import time
from collections.abc import Iterator

from bmpq_research.fuzz.worker import Worker
from bmpq_research.lines import append_line, whole_lines

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
    start, asked = time.monotonic(), 0
    worker = Worker([WORKER], SECONDS, stderr=subprocess.DEVNULL)
    for seed in range(first, first + models):
        if seed in known:
            yield known[seed]
            continue
        if time.monotonic() - start > 60 * minutes:
            break
        if asked and asked % _MODELS_A_PROCESS == 0:
            worker.close()
        told, asked = _asked(worker, seed), asked + 1
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


def _asked(worker: Worker, seed: int) -> dict:
    """What became of a seed, or how its process ended."""
    line, ended = worker.ask(str(seed))
    if line:
        return json.loads(line)
    told = f"no end within {SECONDS:.0f} seconds" if ended == "late" else f"exit code {ended}"
    stage = {"name": "process", "outcome": "finding", "told": told, "seconds": 0.0}
    return {"seed": seed, "layers": [], "options": {}, "budget": "", "stages": [stage]}
