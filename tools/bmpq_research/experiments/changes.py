"""How the widths of a run changed from allocation to allocation."""

import itertools
from collections.abc import Sequence
from typing import Any

# The status of a record that is a measurement, and no allocation.
MEASURED = "densities measured"


def kernels_changed(allocations: Sequence[dict[str, Any]]) -> list[int]:
    """Returns, for each allocation after the first, how many kernels it gave another width than the
    one before.

    Args:
        allocations: as the `history` of the callbacks gives them; what activation density merely
            measured is no allocation.
    """
    bits = [allocation["bits"] for allocation in allocations if allocation["status"] != MEASURED]
    return [
        sum(after[path] != before[path] for path in after)
        for before, after in itertools.pairwise(bits)
    ]


def last_change(allocations: Sequence[dict[str, Any]]) -> int | None:
    """Returns the epoch of the last allocation that changed any width, counted from 0.

    `None` before any allocation.

    The first one counts as a change: a history does not tell the widths before it.
    """
    decided = [allocation for allocation in allocations if allocation["status"] != MEASURED]
    changed = [1, *kernels_changed(decided)]
    return max(
        (
            allocation["epoch"]
            for allocation, kernels in zip(decided, changed, strict=False)
            if kernels
        ),
        default=None,
    )
