"""How much memory this process has held."""

import pathlib
import platform
import resource


def present_memory() -> int:
    """Returns the memory in bytes that this process holds; needs Linux."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def from_now_on() -> int:
    """Lets `peak_memory` begin anew, and returns what is held now; needs Linux."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return present_memory()


def peak_memory() -> int:
    """Returns the most memory in bytes that this process, or one that it has started and that has
    ended, has held at once.
    """
    unit = 1 if platform.system() == "Darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return max(children, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    # ru_maxrss of a process starts at what its parent held.
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return max(children, int(line.split()[1]) * 1024)
