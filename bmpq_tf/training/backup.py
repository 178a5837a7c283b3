"""`BackupAndRestore`: Keras's, whose files a kill cannot cut short."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf._compat import keras_backup, keras_optimizers
from bmpq_tf.training.beside_weights import beside_weights, build_optimizers, random_states

# As Keras calls them; each begins with nothing, `.bkp` behind it, or ours aside.
_WEIGHTS, _METADATA = "latest.weights.h5", "training_metadata.json"
_OLDER, _ASIDE = ".bkp", "aside."
_DAMAGED = (OSError, KeyError)

_files = tf.io.gfile


class BackupAndRestore(keras_backup.BackupHooks):
    """`keras.callbacks.BackupAndRestore` that a run can be killed under at any moment, in the
    middle of a backup too.

    Keras writes its files in place, so that a kill may leave a half, or weights and an epoch that
    do not belong together. This one writes both aside, notes which weights an epoch belongs to, and
    renames; the state before is kept until the next is whole. A run that is started again goes on
    from the newest whole state, with the loss of one epoch at the most, and prints a line that says
    so. It also resumes backups of Keras's own.

    Beside weights, it brings back the state of every optimizer that the model, or a model inside
    it, was compiled with or holds as an attribute, and of the random numbers of layers such as
    `Dropout`. A model that holds built models, such as a GAN without a `call`, need not be built
    itself. What `bmpq_tf.BMPQCallback` goes by lies in the model and comes back with it. Other
    callbacks start anew, as with Keras's.

    Args:
        backup_dir: folder of the backup, of this callback alone, for one fit.
        save_freq: `"epoch"`, or after how many mini-batches to save; a run goes on at the beginning
            of an epoch in any case.
        double_checkpoint: whether the state before the last is kept too; without it only while the
            next is written.
        delete_checkpoint: whether the backup goes when `fit` has ended. A script that does more
            with the model than `fit` wants `False`, or it trains again if it is killed there. The
            backup then is of what `fit` ended with, best weights and early stops too, if this
            callback stands last in the list.

    Raises:
        ValueError: from `fit`, before training: the model is not built; or the folder has files of
            several epochs, none of them whole.

    Example:
        >>> backup = bmpq_tf.BackupAndRestore(folder / "backup", delete_checkpoint=False)
        >>> told = model.fit(images, labels, epochs=2, callbacks=[backup], verbose=0)
        >>> told = model.fit(images, labels, epochs=5, callbacks=[backup], verbose=0)
        Resuming at epoch 3 of 5.
        >>> told.epoch
        [2, 3, 4]
    """

    # Keras sets both before the first call.
    model: keras.Model
    params: dict[str, Any]

    def __init__(
        self,
        backup_dir: str | os.PathLike,
        save_freq: "str | int" = "epoch",
        double_checkpoint: bool = True,
        delete_checkpoint: bool = True,
    ):
        # Keras's annotation has the default alone.
        often: Any = save_freq
        super().__init__(os.fspath(backup_dir), often, double_checkpoint, delete_checkpoint)

    def save_state(self, noted: dict[str, int]) -> None:
        _files.makedirs(self.backup_dir)
        aside = self._path(_ASIDE + _WEIGHTS)
        with _as_built(self.model):
            self.model.save_weights(aside, overwrite=True)
        told = {**noted, "weights": _digest(aside), **beside_weights(self.model)}
        with _files.GFile(self._path(_ASIDE + _METADATA), "w") as file:
            file.write(json.dumps(told))
        # Whatever is cut here, one pair at least is whole under some name.
        for name in (_WEIGHTS, _METADATA):
            if _files.exists(self._path(name)):
                _files.rename(self._path(name), self._path(name + _OLDER), overwrite=True)
        for name in (_WEIGHTS, _METADATA):
            _files.rename(self._path(_ASIDE + name), self._path(name), overwrite=True)
        if not self.double_checkpoint:
            for name in (_WEIGHTS + _OLDER, _METADATA + _OLDER):
                if _files.exists(self._path(name)):
                    _files.remove(self._path(name))

    def on_train_begin(self, logs=None):
        keras_backup.begin_at(self.model, None)
        if _files.exists(self._gone):
            _files.rmtree(self._gone)
        with _as_built(self.model):
            if not self.model.built:
                raise ValueError(
                    f"Model '{self.model.name}' is not built, so a backup could not be restored "
                    "into it. Call it on a batch, or build() it, before fit()."
                )
            self._restore()

    def on_epoch_begin(self, epoch, logs=None):
        keras_backup.begin_at(self.model, None)
        self.note_begin(epoch)
        super().on_epoch_begin(epoch, logs)

    def on_train_end(self, logs=None):
        keras_backup.begin_at(self.model, None)
        if not self.delete_checkpoint:
            # What other callbacks ended with, such as the best epoch; nothing is left to train.
            self.note_begin(self.params["epochs"])
            self._save_model()
        # All at once: half a backup would look like one that was cut.
        elif _files.exists(self.backup_dir):
            _files.rename(self.backup_dir, self._gone, overwrite=True)
            _files.rmtree(self._gone)

    def _restore(self) -> None:
        names = [_ASIDE + name for name in (_WEIGHTS, _METADATA)]
        was_cut = any(_files.exists(self._path(name)) for name in names)
        for weights, name, noted in self._pairs():
            try:
                self._load(weights, noted)
            except _DAMAGED:
                was_cut = True
                continue
            # What a kill left aside would be written over, with nothing whole beside it.
            for found, last in ((weights, _WEIGHTS), (name, _METADATA)):
                if found == _ASIDE + last:
                    _files.rename(self._path(found), self._path(last), overwrite=True)
            is_last = (weights, name) == (_WEIGHTS, _METADATA)
            self._begin_at(noted["epoch"], was_cut or not is_last)
            return
        if there := [*self._names(_WEIGHTS), *self._names(_METADATA)]:
            self._begin_at(self._epoch_of_a_half(there), True)

    def _begin_at(self, epoch: int, was_cut: bool) -> None:
        keras_backup.begin_at(self.model, epoch)
        epochs = self.params["epochs"]
        told = f"Resuming at epoch {epoch + 1} of {epochs}"
        if epoch >= epochs:
            told = f"The backup has all {epochs} epochs"
        if was_cut:
            told = (
                f"The last backup in '{self.backup_dir}' was cut short, so that at most one epoch "
                f"is trained again. {told}"
            )
        print(f"{told}.", flush=True)

    def _epoch_of_a_half(self, there: Sequence[str]) -> int:
        """Returns where to begin if no pair is whole: with the weights alone if the optimizer's
        steps say when they were saved, and from the start where only the first epoch is lost.

        Raises:
            ValueError: that would lose more.
        """
        told = [self._read(name) for name in self._names(_METADATA)]
        epochs = max((one["epoch"] for one in told if one), default=0)
        if epochs == 1 or (not epochs and (not told or _WEIGHTS not in there)):
            return 0
        optimizer, steps = getattr(self.model, "optimizer", None), self.params.get("steps")
        with contextlib.suppress(*_DAMAGED):
            if not epochs and optimizer is not None and steps:
                self._load(_WEIGHTS, {})
                taken = keras_optimizers.progress(optimizer)[0]
                if taken and taken % steps == 0:
                    return int(taken // steps)
        raise ValueError(
            f"No backup in '{self.backup_dir}' is whole. Received: {', '.join(there)}, after "
            f"{epochs or 'an unknown number of'} epochs. Give an older copy of the folder, or "
            "remove it to train anew."
        )

    def _pairs(self) -> Iterator[tuple[str, str, dict]]:
        """Yields the names of weights and of what was noted of them, and that; the newest first."""
        weights = {name: _digest(self._path(name)) for name in self._names(_WEIGHTS)}
        noted = [(name, self._read(name)) for name in self._names(_METADATA)]
        known = [(name, told) for name, told in noted if told]
        for name, told in known:
            belonging = [one for one, digest in weights.items() if digest == told.get("weights")]
            if "weights" not in told and self._is_of_keras_pair(name, weights, known):
                belonging = [name.replace(_METADATA, _WEIGHTS)]
            if belonging:
                yield belonging[0], name, told

    def _is_of_keras_pair(self, name: str, weights: dict, known: Sequence[tuple]) -> bool:
        """Whether what Keras noted, which writes weights first and no digest, is of the weights
        beside it.
        """
        partner = name.replace(_METADATA, _WEIGHTS)
        # The same moment twice: the weights are newer, unless nothing was written yet.
        is_stale = name == _METADATA and len({_moment(told) for _, told in known}) < len(known)
        return partner in weights and not (
            is_stale and weights[partner] != weights.get(partner + _OLDER)
        )

    def _load(self, weights: str, noted: dict) -> None:
        """Restores a pair.

        Raises:
            OSError, KeyError: the file of weights is damaged.
        """
        build_optimizers(self.model, noted.get("optimizers"))
        if weights.endswith(_OLDER):
            # Keras goes by how a name ends.
            copied = self._path("restored." + _WEIGHTS)
            _files.copy(self._path(weights), copied, overwrite=True)
            try:
                self.model.load_weights(copied)
            finally:
                _files.remove(copied)
        else:
            self.model.load_weights(self._path(weights))
        for variable, value in zip(
            random_states(self.model), noted.get("random", ()), strict=False
        ):
            variable.assign(np.asarray(value, variable.dtype))

    def _names(self, name: str) -> list[str]:
        """The files that hold weights, or what was noted of them, the last written first."""
        names = (_ASIDE + name, name, name + _OLDER)
        return [one for one in names if _files.exists(self._path(one))]

    def _read(self, name: str) -> dict | None:
        """What was noted, or `None` where it was cut short."""
        try:
            with _files.GFile(self._path(name), "r") as file:
                told = json.loads(file.read())
            return {**told, "epoch": int(told["epoch"]), "batch": int(told.get("batch", 0))}
        except (ValueError, KeyError, TypeError, tf.errors.OpError):
            return None

    def _path(self, name: str) -> str:
        return os.path.join(self.backup_dir, name)

    @property
    def _gone(self) -> str:
        return f"{self.backup_dir.rstrip('/')}.finished"


def _moment(noted: dict) -> tuple[int, int]:
    return noted["epoch"], noted["batch"]


def _digest(path: str) -> str:
    """Tells a file from any other."""
    digest = hashlib.sha256()
    with _files.GFile(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


@contextlib.contextmanager
def _as_built(model: keras.Model) -> Iterator[None]:
    """Lets Keras save and load a model whose parts are built, though it was never called itself."""
    parts = keras_compat.layers_inside(model)
    if model.built or not parts or not all(part.built for part in parts):
        yield
        return
    model.built = True
    try:
        yield
    finally:
        model.built = False
