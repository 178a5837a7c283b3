"""Compiles C and C++ for microcontrollers, where the distribution's compiler is there.

apt-get install gcc-arm-none-eabi libstdc++-arm-none-eabi-newlib
"""

import dataclasses
import pathlib
import re
import shutil
import subprocess
from collections.abc import Sequence

import pytest

_PREFIX = "arm-none-eabi-"
needs_cortex_m = pytest.mark.skipif(
    shutil.which(f"{_PREFIX}gcc") is None,
    reason="there is no arm-none-eabi-gcc; apt-get install gcc-arm-none-eabi",
)
CORES = {
    "cortex-m4": ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "cortex-m55": ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
}
# As TFLM builds, and every warning an error.
_COMMON = ("-Os", "-Wall", "-Wextra", "-Werror", "-fdata-sections", "-ffunction-sections")
_C = ("gcc", "-std=c11")
_CXX = ("g++", "-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics")


@dataclasses.dataclass(frozen=True)
class Symbol:
    """What an object file holds under a name.

    Attributes:
        section: where; `.rodata` and its parts stay in flash.
        bytes: how many.
        alignment: of its section, in bytes.
        address: in the section.
    """

    section: str
    bytes: int
    alignment: int
    address: int


def compile_for(
    core: str, source: pathlib.Path, folder: pathlib.Path, include: Sequence[pathlib.Path] = ()
) -> dict[str, Symbol]:
    """Compiles one file, without linking, and returns the data that it defines, by name.

    Args:
        core: one of `CORES`.
        source: a .c or .cc file.
        folder: where the object file goes.
        include: where headers lie.

    Raises:
        AssertionError: it does not compile, or not without a warning.
    """
    compiler, *options = _C if source.suffix == ".c" else _CXX
    made = folder / f"{source.stem}-{core}.o"
    headers = [f"-I{one}" for one in (source.parent, *include)]
    command = [_PREFIX + compiler, *options, *CORES[core], *_COMMON, *headers]
    done = subprocess.run(
        [*command, "-c", str(source), "-o", str(made)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return _symbols(made)


def _symbols(path: pathlib.Path) -> dict[str, Symbol]:
    said = subprocess.run(
        [f"{_PREFIX}readelf", "-SsW", str(path)], capture_output=True, text=True, check=True
    ).stdout
    sections = {
        int(number): (name, int(alignment))
        for number, name, alignment in re.findall(r"^ *\[ *(\d+)\] (\S+) .* (\d+)$", said, re.M)
    }
    found = {}
    pattern = r"^ *\d+: ([0-9a-f]+) +(\d+) OBJECT +GLOBAL +\S+ +(\d+) (\S+)$"
    for address, size, number, name in re.findall(pattern, said, re.M):
        section, alignment = sections[int(number)]
        found[name] = Symbol(section, int(size), alignment, int(address, 16))
    return found
