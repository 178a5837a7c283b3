"""How far a training is that prints no progress bar of Keras's."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from bmpq_tf import progress


class _EpochsDone(keras.callbacks.Callback):
    params: dict[str, Any]

    def __init__(self, work: progress.Work):
        super().__init__()
        self._work, self._epoch = work, -1
        self._is_first = True

    def on_epoch_begin(self, epoch, logs=None):
        if self._epoch < 0:
            self._work.count(self.params["epochs"], epoch)
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if batch and (steps := self.params.get("steps")):
            self._work.reached(self._epoch + min(1.0, batch / steps))

    def on_epoch_end(self, epoch, logs=None):
        if self._is_first:
            # It was longer than the others will be, because TensorFlow traced the step.
            self._is_first = False
            self._work.count(self.params["epochs"], epoch + 1)
        self._work.reached(epoch + 1)


@contextlib.contextmanager
def epochs_shown(what: str, verbose: int = 1) -> Iterator[keras.callbacks.Callback]:
    """Yields a callback for one `fit`, with which its epochs and the time left are shown while the
    block runs.

    Args:
        what: is trained, in words.
        verbose: 0 shows nothing.
    """
    with progress.shown(what, verbose=verbose) as work:
        yield _EpochsDone(work)
