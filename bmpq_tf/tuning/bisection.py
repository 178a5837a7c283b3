"""Which run a search for the smallest budget makes next: bisection over budgets that ascend."""

import dataclasses
import math
from collections.abc import Mapping

SHORT, FULL = "short", "full"


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        stage: `SHORT`, to compare, or `FULL`, to keep.
        index: of the budget, the smallest one first.
    """

    stage: str
    index: int


def next_run(short: Mapping[int, bool], full: Mapping[int, bool], count: int) -> Run | None:
    """Returns the next run, or `None` where nothing is left to find out.

    Short runs bisect; the smallest budget that meets the tolerance there is trained in full. One
    that does not meet it in full makes way for larger ones, in steps that double.

    Args:
        short: by index, whether a short run met the tolerance.
        full: the same of full runs.
        count: of budgets.
    """
    low, high = _bracket(short, -1, count)
    if high - low > 1:
        return Run(SHORT, (low + high) // 2)
    low, met = _bracket(full, high - 1, count)
    if met < count:
        return Run(FULL, (low + met) // 2) if met - low > 1 else None
    step = 2 ** max(0, len(full) - 1)
    return Run(FULL, min(low + step, count - 1)) if low < count - 1 else None


def found(full: Mapping[int, bool]) -> int | None:
    """Returns the smallest budget that met the tolerance in full, or `None`."""
    return min((index for index, is_met in full.items() if is_met), default=None)


def short_runs_left(short: Mapping[int, bool], count: int) -> int:
    """Returns how many short runs there may still be, at most."""
    low, high = _bracket(short, -1, count)
    return math.ceil(math.log2(high - low))


def _bracket(met: Mapping[int, bool], below: int, count: int) -> tuple[int, int]:
    """The largest index that did not meet the tolerance, and the smallest that did."""
    high = min((index for index, is_met in met.items() if is_met), default=count)
    low = max((index for index, is_met in met.items() if not is_met and index < high), default=-1)
    return max(low, below), high
