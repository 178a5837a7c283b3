"""What the installed commands say of damaged files.

Each answer is one line for people, whatever was damaged; nothing crashes, hangs or runs code.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterator

import numpy as np

from bmpq_research.fuzz.damage import AS_BYTES, AS_KERAS, AS_TFLITE, AS_ZIP, Damage
from bmpq_research.fuzz.originals import MARKER, write_originals
from bmpq_research.fuzz.worker import Worker

WORKER = pathlib.Path(__file__).with_name("damaged_worker.py")
# Per file, on a machine with other work too.
SECONDS = 240.0
LONGEST = 1500

_NAMES = {**AS_BYTES, **AS_KERAS, **AS_TFLITE}
# By command: which original, what damages it besides damages of bytes, and how it is given.
_GIVEN: dict[str, list[tuple[str, dict[str, Damage], list[str]]]] = {
    "inspect": [
        ("good_{kind}.tflite", AS_TFLITE, ["{path}"]),
    ],
    "evaluate": [
        ("good_{kind}.tflite", AS_TFLITE, ["{path}", "--data={folder}/good.npz"]),
        ("good.npz", AS_ZIP, ["{folder}/good_size.tflite", "--data={path}"]),
        (
            "good.keras",
            AS_KERAS,
            ["{folder}/good_size.tflite", "--data={folder}/good.npz", "--keras={path}"],
        ),
    ],
    "export": [
        ("good.keras", AS_KERAS, ["{path}", "{folder}/out.tflite", "--overwrite"]),
        ("good.h5", {}, ["{path}", "{folder}/out.tflite", "--overwrite"]),
        (
            "good.npy",
            {},
            ["{folder}/good.keras", "{folder}/out.tflite", "--overwrite", "--verify_with={path}"],
        ),
        (
            "good.npz",
            AS_ZIP,
            ["{folder}/good.keras", "{folder}/out.tflite", "--overwrite", "--verify_with={path}"],
        ),
    ],
    "tune": [
        (
            "good.keras",
            AS_KERAS,
            ["--model={path}", "--data={folder}/good.npz", "--out_dir={folder}/tuned"],
        ),
        (
            "good.npz",
            AS_ZIP,
            ["--model={folder}/good.keras", "--data={path}", "--out_dir={folder}/tuned"],
        ),
    ],
}
# Files that read one kind are what a user damages most; tune reads as the others do.
_SHARES = {"inspect": 0.2, "evaluate": 0.4, "export": 0.25, "tune": 0.15}


@dataclasses.dataclass(frozen=True)
class Case:
    """One command on one damaged file.

    Attributes:
        number: with the seed, what sets it.
        command: without `bmpq-`.
        original: the file before it was damaged.
        damage: how it was; empty for files that are evil as they are.
        arguments: of the command.
    """

    number: int
    command: str
    original: str
    damage: str
    arguments: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command did with a damaged file.

    Attributes:
        case: which it was.
        outcome: `"refused"` in a line, or `"works"` all the same; anything else is a finding:
            `"traceback"`, `"crash"`, `"hang"`, `"code run"`, `"unclear"`.
        said: on both streams, or a traceback.
    """

    case: Case
    outcome: str
    said: str

    @property
    def is_finding(self) -> bool:
        """Whether it is not as it should be."""
        return self.outcome not in ("refused", "works")


def cases(folder: pathlib.Path, count: int, seed: int) -> list[Case]:
    """Returns so many cases; those of evil files first, then random ones."""
    found = [
        Case(number, command, path.name, "", tuple(_arguments(given, folder, path)))
        for number, (command, path, given) in enumerate(_evil(folder))
    ]
    commands, shares = list(_SHARES), list(_SHARES.values())
    for number in range(len(found), count):
        generator = np.random.default_rng((seed, number))
        command = str(generator.choice(commands, p=shares))
        given = _GIVEN[command]
        original, more, arguments = given[generator.integers(len(given))]
        if "{kind}" in original:
            kinds = sorted(path.name for path in folder.glob("good_*.tflite"))
            original = str(generator.choice(kinds))
        # Half of the damages are those that the format has of its own.
        ways = more if more and generator.random() < 0.5 else AS_BYTES
        damage = str(generator.choice(sorted(ways)))
        path = folder / f"damaged_{number}{pathlib.Path(original).suffix}"
        found.append(
            Case(number, command, original, damage, tuple(_arguments(arguments, folder, path)))
        )
    return found[:count]


def _evil(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path, list[str]]]:
    for command, ways in _GIVEN.items():
        for original, _, given in ways:
            for path in sorted(folder.glob(f"evil_*{pathlib.Path(original).suffix}")):
                yield command, path, given


def _arguments(given: list[str], folder: pathlib.Path, path: pathlib.Path) -> list[str]:
    return [part.format(path=path, folder=folder) for part in given]


def write_damaged(case: Case, folder: pathlib.Path, seed: int) -> None:
    """Writes the damaged file of a case."""
    if case.damage:
        content = (folder / case.original).read_bytes()
        generator = np.random.default_rng((seed, case.number, 1))
        name = f"damaged_{case.number}{pathlib.Path(case.original).suffix}"
        (folder / name).write_bytes(_NAMES[case.damage](content, generator))


def run(folder: pathlib.Path, count: int, seed: int = 0, only: int | None = None):
    """Makes the originals, damages them, asks the commands, and yields an `Answer` each."""
    folder.mkdir(parents=True, exist_ok=True)
    write_originals(folder)
    chosen = [case for case in cases(folder, count, seed) if only in (None, case.number)]
    by_command = collections.defaultdict(list)
    for case in chosen:
        by_command[case.command].append(case)
    for command, of_command in by_command.items():
        # A module beside the models is where a careless loader would look.
        worker = Worker([WORKER, command], SECONDS, path=["."], cwd=folder)
        for case in of_command:
            write_damaged(case, folder, seed)
            yield _asked(worker, case, folder)
            for path in folder.glob(f"damaged_{case.number}.*"):
                path.unlink()
        worker.close()


def _asked(worker: Worker, case: Case, folder: pathlib.Path) -> Answer:
    """What a command did with a case's file, and whether that ran code."""
    line, ended = worker.ask(json.dumps(case.arguments))
    marker = folder / MARKER
    if marker.exists():
        marker.rmdir() if marker.is_dir() else marker.unlink()
        return Answer(case, "code run", line)
    if not line:
        if ended == "late":
            return Answer(case, "hang", f"no end within {SECONDS:.0f} seconds")
        return Answer(case, "crash", f"exit {ended}")
    told = json.loads(line)
    return Answer(case, _outcome(told), told["said"])


def _outcome(told: dict) -> str:
    if told["code"] is None:
        return "traceback"
    if told["code"] == 0:
        return "works"
    lines = [line for line in told["said"].splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    clear = (
        len(errors) == 1
        and lines[-2:] == [errors[0], "(BMPQ_TRACEBACK=1 shows where)"]
        and ("Received: " in errors[0] or "Model '" in errors[0])
        and not errors[0].rstrip(".").endswith("bytes")
        and len(errors[0]) <= LONGEST
    )
    return "refused" if clear else "unclear"
