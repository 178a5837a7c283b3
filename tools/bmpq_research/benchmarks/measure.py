"""How the suites measure: contestants in turn, ratios pair by pair, peak memory of a fresh process,
growth as an exponent.
"""

import itertools
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from bmpq_research.memory import peak_memory


def alternate(
    turns: Mapping[str, Callable[[], Any]], rounds: int, seconds: float = math.inf, warm_up: int = 1
) -> dict[str, list[float]]:
    """Runs each contestant once a round, forwards and backwards by turns, and times it.

    Args:
        turns: what one turn of each contestant does.
        rounds: how many are timed.
        seconds: no further round starts after these, but at least three are timed (or `rounds`, if
            fewer).
        warm_up: rounds before, untimed.

    Returns:
        By contestant, the seconds of each timed round.
    """
    for turn in list(turns.values()) * warm_up:
        turn()
    times: dict[str, list[float]] = {name: [] for name in turns}
    started = time.perf_counter()
    for number in range(rounds):
        if number >= min(3, rounds) and time.perf_counter() - started > seconds:
            break
        for name in list(turns) if number % 2 == 0 else reversed(list(turns)):
            start = time.perf_counter()
            turns[name]()
            times[name].append(time.perf_counter() - start)
    return times


def paired_ratio(base: Sequence[float], own: Sequence[float]) -> float:
    """Returns the median over rounds of the base's seconds over the contestant's.

    Above 1 is faster than the base.
    """
    return statistics.median(theirs / ours for theirs, ours in zip(base, own, strict=True))


def in_fresh_process(function: Callable, *arguments) -> tuple[Any, float, float]:
    """Runs an importable function in a process of its own, where nothing else has raised the peak.

    Returns:
        What it returned, the process's peak resident memory in MB, and what the function added to
        it in MB.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_with_peak, function, arguments).result()


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Fits `seconds ~ sizes ** exponent` by least squares of the logarithms; 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def last_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The steepest exponent between neighbouring sizes.

    What a fit over all of them, fixed costs included, may hide.
    """
    pairs = itertools.pairwise(zip(sizes, seconds, strict=True))
    return max(
        math.log(later[1] / earlier[1]) / math.log(later[0] / earlier[0])
        for earlier, later in pairs
    )


def _with_peak(function, arguments):
    before = peak_memory()
    result = function(*arguments)
    return result, peak_memory() / 1e6, (peak_memory() - before) / 1e6
