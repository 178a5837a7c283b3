"""Keras's `BackupAndRestore` from inside, as of Keras 3.15; tested as `keras.py` is."""

import keras


class BackupHooks(keras.callbacks.BackupAndRestore):
    """Keras's callback, which knows when to save and what to note of it; how is a subclass's."""

    def save_state(self, noted: dict[str, int]) -> None:
        """Saves the model; `noted` has the `epoch` and the `batch` that it goes on with."""
        raise NotImplementedError

    def note_begin(self, epoch: int) -> None:
        """Notes the epoch that begins: Keras does when one ends, so not in the first of a fit."""
        self._current_epoch, self._last_batch_seen = epoch, 0

    def _save_model(self):
        self.save_state({"epoch": self._current_epoch, "batch": self._last_batch_seen})


def begin_at(model: keras.Model, epoch: int | None) -> None:
    """Lets the `fit` that is running begin at another epoch, counted from 0; `None`: at its own.

    Keras never forgets it, so that it would move the beginning of later fits too.
    """
    model._initial_epoch = epoch
