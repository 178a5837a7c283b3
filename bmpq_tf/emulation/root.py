"""Where the emulated root lies, and whether it is complete."""

import json
import os
import pathlib
import platform
import sys

from bmpq_tf.emulation import pins

VARIABLE = "BMPQ_ARM64"
SETUP = "bmpq-arm64"
# Dot products of int8, no i8mm: qemu's other processors answer wrongly or stop (docs/arm.md).
CPU = "cortex-a76"
# Written last, so that a folder with it is complete.
MANIFEST = "manifest.json"
QEMU = "usr/bin/qemu-aarch64-static"
PYTHON = f"usr/bin/python{pins.PYTHON}"
SITE = "site"


def is_arm() -> bool:
    """Whether this machine is what is emulated elsewhere."""
    return platform.machine() in ("aarch64", "arm64")


def default_root() -> pathlib.Path:
    """Returns the folder that `BMPQ_ARM64` names, or one in Python's own environment."""
    given = os.environ.get(VARIABLE)
    return pathlib.Path(given).expanduser() if given else pathlib.Path(sys.prefix) / "arm64"


def pinned() -> dict:
    """Returns what a root is made of, as its manifest tells it."""
    packages = {name: version for name, (version, _) in pins.PACKAGES.items()}
    return {"packages": packages, "wheels": pins.WHEELS}


def is_ready(root: pathlib.Path) -> bool:
    """Whether a root is complete and made of what this version wants."""
    try:
        made_of = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    return made_of.get("pinned") == pinned()


def ready_root() -> pathlib.Path:
    """Returns the root.

    Raises:
        FileNotFoundError: it is not set up.
    """
    root = default_root().absolute()
    if is_ready(root):
        return root
    state = "is of another version" if (root / MANIFEST).exists() else "is not there"
    raise FileNotFoundError(
        f"The emulated arm64 runtime {state}. Received: {VARIABLE}="
        f"{os.environ.get(VARIABLE, '')!r}, so '{root}' was looked into. Set it up with: {SETUP}"
    )
