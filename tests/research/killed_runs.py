"""A run of tools/train.py that is killed again and again, and started again with the same command.

Forks, so that TensorFlow is imported once. `python killed_runs.py FOLDER SEED KILLS` writes the
outcome of a run that nothing stopped to FOLDER/whole, and that of the killed one to FOLDER/killed;
prints one line a kill.
"""

import contextlib
import os
import pathlib
import random
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from absl import flags

TOOLS = pathlib.Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import train  # noqa: E402

from bmpq_research.experiments import training  # noqa: E402
from bmpq_tf import BackupAndRestore  # noqa: E402

# As many as kills, since each lets an epoch pass.
EPOCHS = 20
FLAGS = [
    "--model=digits_cnn",
    "--channel_multiplier=0.25",
    f"--epochs={EPOCHS}",
    "--settle_epochs=3",
    "--budget=8x",
    "--seed=3",
    "--learning_rate=0.05",
    "--verbose=0",
]
# Where a kill falls: in the second epoch or backup of a process, so that each gets on, or in the
# export.
PLACES = ("training", "checkpoint", "export")


class Place:
    """Counts the calls of Python in a part of a run, and kills the process at one of them.

    Calls, not seconds, so that the moments do not depend on the machine.
    """

    def __init__(self, kill_at: int | None, part: int):
        self.kill_at, self.part = kill_at, part
        self.entered, self.calls = 0, 0

    @contextlib.contextmanager
    def inside(self):
        self.entered += 1
        if self.entered != self.part:
            yield
            return
        sys.setprofile(self._count)
        try:
            yield
        finally:
            sys.setprofile(None)
        if self.kill_at is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    def _count(self, frame, event, argument):
        self.calls += 1
        if self.calls == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder: pathlib.Path, name: str, place: str | None, kill_at: int | None) -> dict[str, int]:
    """One process of the run; returns how many calls each place took, and how many epochs."""
    places = {
        one: Place(kill_at if one == place else None, 1 if one == "export" else 2) for one in PLACES
    }
    save, write = BackupAndRestore.save_state, train.write_outcome

    def save_state(self, noted):
        with places["checkpoint"].inside():
            save(self, noted)

    def write_outcome(*arguments, **keywords):
        if place not in (None, "export"):
            # Its place did not come any more.
            os.kill(os.getpid(), signal.SIGKILL)
        with places["export"].inside():
            return write(*arguments, **keywords)

    class Watch(training.EpochWatch):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            self._inside = places["training"].inside()
            self._inside.__enter__()

        def on_epoch_end(self, epoch, logs=None):
            self._inside.__exit__(None, None, None)
            super().on_epoch_end(epoch, logs)

    BackupAndRestore.save_state, train.write_outcome = save_state, write_outcome
    training.EpochWatch = Watch
    keras.utils.set_random_seed(3)
    flags.FLAGS(
        [
            "train.py",
            *FLAGS,
            f"--out_dir={folder / name}",
            f"--backup_dir={folder / f'{name}_backup'}",
        ]
    )
    train.main()
    calls = {one: counted.calls for one, counted in places.items()}
    return calls | {"epochs": places["training"].entered}


def in_a_process(*arguments) -> tuple[int, dict[str, int]]:
    """Runs in a fork; returns its signal, 0 if it ended well, and what it counted."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            told = run(*arguments)
            os.write(writing, repr(told).encode())
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, eval(told) if told else {}


def main(folder: pathlib.Path, seed: int, kills: int) -> None:
    """Runs once to the end, and once with so many kills."""
    chance = random.Random(seed)
    status, calls = in_a_process(folder, "whole", None, None)
    assert status == 0, status
    print(f"uninterrupted: calls {calls}", flush=True)
    in_export = kills * 3 // 10
    places = [chance.choice(PLACES[:2]) for _ in range(kills - in_export)]
    for number, place in enumerate([*places, *["export"] * in_export]):
        kill_at = chance.randint(1, calls[place])
        status, _ = in_a_process(folder, "killed", place, kill_at)
        print(f"kill {number + 1}: {place}, call {kill_at} of {calls[place]}: {status}", flush=True)
        assert status == -signal.SIGKILL, status
    status, calls = in_a_process(folder, "killed", None, None)
    assert status == 0, status
    # All epochs were trained before the kills in the export.
    assert calls["epochs"] == 0, calls
    print("ended", flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
