"""What each epoch of a run was, kept over restarts; and the end of a run whose loss is no number any more."""

import csv
import math
import os
import pathlib
import time

import keras


class DivergedError(RuntimeError):
    """The training loss stopped being a finite number.

    Attributes:
        epoch: in which, counted from 1.
    """

    def __init__(self, epoch: int, loss: float):
        super().__init__(f"Training diverged: the loss of epoch {epoch} is {loss}. Train with a lower learning rate or a longer warm-up.")
        self.epoch = epoch


class EpochWatch(keras.callbacks.Callback):
    """Adds `seconds` and `cpu_seconds` to each epoch's logs, and raises `DivergedError` where its loss is not finite.

    The second are of all threads, and hardly disturbed by other programs.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        wall, cpu = self._started
        logs["seconds"], logs["cpu_seconds"] = time.perf_counter() - wall, time.process_time() - cpu
        if not math.isfinite(logs["loss"]):
            raise DivergedError(epoch + 1, logs["loss"])


def epoch_callbacks(folder: str | os.PathLike | None) -> list[keras.callbacks.Callback]:
    """Returns what `fit` needs for `read_epochs`: the watch, and where there is a folder, a log that restarts append to."""
    if folder is None:
        return [EpochWatch()]
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    return [EpochWatch(), keras.callbacks.CSVLogger(str(_file(folder)), append=True)]


def read_epochs(folder: str | os.PathLike) -> list[dict[str, float]]:
    """Returns the logs of every epoch in a folder, oldest first; one that was trained twice, around a kill, as it was last."""
    if not _file(folder).exists():
        return []
    with open(_file(folder), newline="") as lines:
        # A kill can cut the last line short.
        rows = [row for row in csv.DictReader(lines) if all(row.values())]
    # CSVLogger adds columns for a validation that there is not.
    numbers = {int(row["epoch"]): {name: float(value) for name, value in row.items() if name != "epoch" and value != "NA"} for row in rows}
    return [{"epoch": epoch, **numbers[epoch]} for epoch in sorted(numbers)]


def _file(folder: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(folder) / "epochs.csv"
