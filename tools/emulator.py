"""Checks an emulator's int8 instructions, each alone in a program of a few lines, against NumPy.

Needs the distribution's binutils-aarch64-linux-gnu. docs/arm.md tells what was found.

Examples:
  python tools/emulator.py
  python tools/emulator.py --qemu=/usr/bin/qemu-aarch64-static --cpu=max
"""

import shutil
import subprocess

from absl import flags

from bmpq_research.arm.instructions import INSTRUCTIONS, wrong_share
from bmpq_research.program import run as run_program
from bmpq_tf.emulation.root import QEMU, ready_root

flags.DEFINE_string("qemu", None, "The emulator; that of bmpq-arm64 if not given.")
# The tile's program wants streaming vectors of 256 bits.
flags.DEFINE_string(
    "cpu", "max,sme128=off,sme256=on,sme512=off,sme1024=off,sme2048=off", "The processor."
)
flags.DEFINE_string("binutils", "aarch64-linux-gnu-", "The prefix of the assembler and linker.")


def main() -> None:
    """Prints a row for each instruction."""
    given = flags.FLAGS
    if not shutil.which(f"{given.binutils}as"):
        raise FileNotFoundError(
            f"There is no such assembler. Received: --binutils={given.binutils}. Install it: "
            "apt-get install binutils-aarch64-linux-gnu."
        )
    qemu = given.qemu or str(ready_root() / QEMU)
    told = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
    print(
        f"{told.splitlines()[0]}, -cpu {given.cpu}\n\n| instruction | wrong values |\n| --- | --- |"
    )
    for one in INSTRUCTIONS:
        try:
            share = f"{wrong_share(one, [qemu, '-cpu', given.cpu], given.binutils):.0%}"
        except RuntimeError as error:
            share = str(error)
        print(f"| {one.name} | {share} |")


if __name__ == "__main__":
    run_program(main)
