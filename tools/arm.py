"""Asks LiteRT on an emulated ARM processor what was asked here: the probe of the runtimes, one file
of each kind from each model of the zoo, and the demo's file.

`bmpq-arm64` sets the processor up; `make test-arm` does both. Ends with code 1 where the processors
do not agree, or the probe is not what docs/runtime_matrix.md tells.

Examples:
  python tools/arm.py
  python tools/arm.py --parts=probe
  python tools/arm.py --parts=files --models=resnet20,MobileNetV2
  python tools/arm.py --device_probe=probe.pyz
"""

# First: it keeps off the screen what TensorFlow writes when it is imported.
import bmpq_tf

# isort: split
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import keras
from absl import flags

ROOT = pathlib.Path(__file__).parents[1]
# The architectures that users bring are a helper of the tests.
sys.path.append(str(ROOT / "tests"))

import zoo

from bmpq_research import markdown
from bmpq_research.arm import bundle, files
from bmpq_research.models import build_model
from bmpq_research.program import check_installed
from bmpq_research.program import run as run_program
from bmpq_research.runtime_probe import probe, table
from bmpq_tf.emulation import session
from bmpq_tf.export.kernels.storage import MODES
from bmpq_tf.export.verification.runtimes import check_place

PARTS = ("probe", "files", "demo")
MODELS: dict[str, Callable[[], keras.Model]] = {
    "digits_cnn": lambda: build_model("digits_cnn", (8, 8, 1), 10),
    "resnet20": lambda: build_model("resnet20", (32, 32, 3), 10),
    **zoo.ZOO,
}
flags.DEFINE_list("parts", list(PARTS), f"Which of {', '.join(PARTS)}.")
flags.DEFINE_list("models", list(MODELS), "Whose files, in this order.")
flags.DEFINE_float("minutes", 15.0, "Start no other model's files after so long.")
flags.DEFINE_string(
    "demo_dir", str(ROOT / "runs" / "demo"), "What make demo wrote; a shorter run if nothing is."
)
flags.DEFINE_string(
    "device_probe", None, "Write the probe for a board or a phone to this .pyz file instead."
)
flags.DEFINE_string(
    "page", str(ROOT / "docs" / "runtime_matrix.md"), "The page that tells the matrix."
)
_EXAMPLES = 8
# i8mm and SVE. SME's outer products are wrong in Debian 12's emulator: docs/arm.md.
NEWER = "max,sme=off"


def ask_probe(page: pathlib.Path) -> list[str]:
    """Probes every operator, mode and width, prints the matrix, and returns what differs from the
    page.
    """
    found = probe.probe(runtimes=(*probe.RUNTIMES, *probe.ARM_RUNTIMES))
    cells = table.rows(found)
    print(markdown.table(table.COLUMNS, cells), flush=True)
    departed = table.departures(table.documented(page.read_text()), cells)
    same = sum(row[-1] == "same" for row in cells)
    print(f"arm64 does what x86-64 does in {same} of {len(cells)} rows.")
    with session.on_processor(NEWER):
        newer = probe.probe(runtimes=probe.ARM_RUNTIMES)
    older = [seen for seen in found if seen.runtime in probe.ARM_RUNTIMES]
    others = [
        f"{one.operator}, {one.mode}, {one.granularity}, int{one.bits}, {one.runtime}: "
        f"{one.outcome}, and {two.outcome} with -cpu {NEWER}"
        for one, two in zip(older, newer, strict=True)
        # What a wrong kernel leaves depends on memory.
        if one.outcome != two.outcome and (one.outcome, two.outcome) != ("wrong", "right")
    ]
    alike = len(older) - len(others)
    print(f"With i8mm and SVE (-cpu {NEWER}) {alike} of {len(older)} answers are judged alike.\n")
    return departed + others


def ask_files(names: list[str], minutes: float) -> list[str]:
    """Compares files of models, prints a line for each, and returns those that do not agree."""
    start, wrong, late = time.perf_counter(), [], []
    columns = ("model", "kind", "bytes", "largest", "difference", "rms", "without XNNPACK", "rms")
    print(markdown.table(columns, ()), flush=True)
    for name in names:
        if time.perf_counter() - start > 60 * minutes:
            late.append(name)
            continue
        keras.utils.set_random_seed(0)
        model = MODELS[name]()
        batch, _ = zoo.example_batch(model, _EXAMPLES)
        batch = batch if isinstance(batch, list) else [batch]
        quantized = files.prepared(model, batch)
        for mode in MODES:
            try:
                found = files.compare(name, quantized, batch, mode)
            except (bmpq_tf.ExportError, ValueError) as error:
                if mode != "micro":
                    raise
                print(f"| {name} | {mode} | refused: {str(error).split('.')[0]} |", flush=True)
                continue
            print(_line(found), flush=True)
            if not found.holds:
                wrong.append(f"{name}, {mode}: the answers on arm64 are others: {_line(found)}")
        keras.utils.clear_session()
    took = time.perf_counter() - start
    left = f" Not run, for want of time: {', '.join(late)}." if late else ""
    print(f"{len(names) - len(late)} models in {took / 60:.1f} minutes.{left}\n", flush=True)
    return wrong


def _line(found: files.Answers) -> str:
    cells = (
        found.model,
        found.mode,
        f"{found.bytes:,}",
        f"{found.scale:.3g}",
        f"{found.largest:.2g}",
        f"{found.rms:.2g}",
        f"{found.plain_largest:.2g}",
        f"{found.plain_rms:.2g}",
    )
    return f"| {' | '.join(cells)} |"


def ask_demo(folder: pathlib.Path) -> list[str]:
    """Judges the demo's file with bmpq-evaluate on both processors, and returns what differs."""
    with tempfile.TemporaryDirectory() as made:
        if not (folder / "model.tflite").exists():
            folder = pathlib.Path(made) / "demo"
            _command(
                "tools/train.py",
                "--model=digits_cnn",
                "--dataset=digits",
                "--budget=12x",
                "--epochs=6",
                "--verbose=0",
                f"--out_dir={folder}",
            )
        data = pathlib.Path(made) / "digits.npz"
        _command("tools/save_arrays.py", "--dataset=digits", "--split=test", f"--out={data}")
        said = [
            _command(
                "-m",
                "bmpq_tf.cli.evaluate",
                str(folder / "model.tflite"),
                f"--data={data}",
                f"--keras={folder / 'model.keras'}",
                f"--on={place}",
            )
            for place in ("host", "arm64")
        ]
    print("\n".join(said), flush=True)
    figures = [re.findall(r"[\d.]+%", one) for one in said]
    if figures[0] == figures[1] and len(figures[0]) == 2:
        return []
    return [f"bmpq-evaluate says other things on arm64: {figures[0]} and {figures[1]}"]


def _command(*arguments: str) -> str:
    """What a command of this repository prints.

    Raises:
        RuntimeError: it fails.
    """
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed. It said: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


def main() -> None:
    """Asks all, and ends with code 1 where something differs."""
    given = flags.FLAGS
    for flag, known in (("parts", PARTS), ("models", MODELS)):
        if unknown := sorted(set(given[flag].value) - set(known)):
            raise ValueError(
                f"Unknown {flag}. Received: --{flag}={','.join(given[flag].value)}, of which "
                f"{', '.join(unknown)} is not one of {', '.join(known)}."
            )
    page = pathlib.Path(given.page)
    if given.device_probe:
        bundle.write(given.device_probe, table.documented(page.read_text()))
        print(f"{given.device_probe}: copy it to the device and run it there with python3.")
        return
    check_place("--on", "arm64")
    print(f"Emulated: {session.shared().versions()}\n", flush=True)
    wrong = []
    if "probe" in given.parts:
        wrong += ask_probe(page)
    if "files" in given.parts:
        wrong += ask_files(given.models, given.minutes)
    if "demo" in given.parts:
        check_installed("sklearn")
        wrong += ask_demo(pathlib.Path(given.demo_dir))
    if wrong:
        raise RuntimeError("On arm64 something differs:\n  " + "\n  ".join(wrong))
    print("arm64 answers as x86-64 does.")


if __name__ == "__main__":
    run_program(main)
