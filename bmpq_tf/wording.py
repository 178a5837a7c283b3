"""Lists as messages tell them."""

from collections.abc import Sequence

_NAMED = 5


def listed(names: Sequence[str]) -> str:
    """Returns the first five names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
