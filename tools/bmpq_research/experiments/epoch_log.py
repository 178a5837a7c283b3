"""What each epoch of a run was, kept over restarts.

And the end of a run whose loss is no number any more.
"""

import json
import math
import os
import pathlib
import time

import keras

from bmpq_research.lines import append_line, whole_lines


class DivergedError(RuntimeError):
    """The training loss stopped being a finite number.

    Attributes:
        epoch: in which, counted from 1.
    """

    def __init__(self, epoch: int, loss: float):
        super().__init__(
            f"Training diverged: the loss of epoch {epoch} is {loss}. Train with a lower learning "
            "rate or a longer warm-up."
        )
        self.epoch = epoch


class EpochWatch(keras.callbacks.Callback):
    """Adds `seconds` and `cpu_seconds` to each epoch's logs, keeps them, and raises `DivergedError`
    where the loss is not finite.

    The second are of all threads, and hardly disturbed by other programs. Keras's `CSVLogger` would
    leave its file open when a run ends by an error.

    Args:
        folder: where the logs are kept, appended to by restarts; `None` keeps none.
    """

    def __init__(self, folder: str | os.PathLike | None = None):
        super().__init__()
        self.folder = folder

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        wall, cpu = self._started
        logs["seconds"], logs["cpu_seconds"] = time.perf_counter() - wall, time.process_time() - cpu
        if not math.isfinite(logs["loss"]):
            raise DivergedError(epoch + 1, logs["loss"])
        if self.folder is not None:
            append_line(
                _file(self.folder),
                json.dumps(
                    {"epoch": epoch, **{name: float(value) for name, value in logs.items()}}
                ),
            )


def read_epochs(folder: str | os.PathLike) -> list[dict[str, float]]:
    """Returns the logs of every epoch in a folder, oldest first.

    One that was trained twice, around a kill, as it was last.
    """
    epochs = [json.loads(line) for line in whole_lines(_file(folder))]
    return [told for _, told in sorted({told["epoch"]: told for told in epochs}.items())]


def _file(folder: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(folder) / "epochs.jsonl"
