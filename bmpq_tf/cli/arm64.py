"""Sets up an emulated arm64 Python with LiteRT, for bmpq-export --verify_on=arm64 and
bmpq-evaluate --on=arm64.

It lies in a folder of its own, which BMPQ_ARM64 names, or in Python's environment; nothing is
installed on the machine. Debian 12 only.

Examples:
  bmpq-arm64
  bmpq-arm64 --again
  BMPQ_ARM64=~/arm64 bmpq-arm64
"""

import time

from absl import flags

from bmpq_tf.cli.program import run as run_program
from bmpq_tf.emulation import root as emulated
from bmpq_tf.emulation import setup
from bmpq_tf.emulation.session import Session

flags.DEFINE_bool("again", False, "Make it anew even if it is there.")


def main(arguments: list[str]) -> None:
    """Makes the root unless it is there, and starts it once."""
    if len(arguments) != 1:
        raise ValueError(f"Takes flags only. Received: {arguments[1:]}. See --help.")
    root, start = emulated.default_root(), time.perf_counter()
    if emulated.is_ready(root) and not flags.FLAGS.again:
        print(f"{root}: the emulated arm64 runtime is there.")
        return
    print(f"{root}: setting up the emulated arm64 runtime")
    setup.make_root(root)
    session = Session.emulated()
    told = session.versions()
    session.close()
    print(f"{root}: {told} answers, after {time.perf_counter() - start:.0f} s.")


def run() -> None:
    """The console entry point."""
    run_program(main)


if __name__ == "__main__":
    run()
