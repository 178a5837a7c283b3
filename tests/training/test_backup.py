"""A run goes on from every state that a kill can leave its backup in."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled, small_data, small_model
from test_quantized_part import Gan, X, Y, critic, quantized

from bmpq_tf import BackupAndRestore, BMPQCallback, quantize_model
from bmpq_tf.model.kernels import model_kernels

WEIGHTS, METADATA = "latest.weights.h5", "training_metadata.json"
IMAGES, LABELS = small_data()
EPOCHS, KILLED_AFTER = 5, 3


class KilledError(Exception):
    """In place of a signal."""


class KillAfter(keras.callbacks.Callback):
    """Stands behind the backup."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.epoch:
            raise KilledError


class KillBefore(keras.callbacks.Callback):
    """Stands behind the backup, which has restored by then."""

    def on_epoch_begin(self, epoch, logs=None):
        raise KilledError


def dense() -> keras.Model:
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(6), keras.layers.Dropout(0.3), keras.layers.Dense(4)]
    )
    # Nothing is traced, as there are many runs.
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", run_eagerly=True)
    return model


def fit(model, *callbacks, epochs=EPOCHS):
    return model.fit(
        X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
    )


def killed_run(folder, callback=BackupAndRestore, make=dense, after=KILLED_AFTER, **arguments):
    with pytest.raises(KilledError):
        fit(make(), callback(str(folder), **arguments), KillAfter(after))


@pytest.fixture(scope="module")
def whole():
    """The weights of a run that nothing stopped."""
    model = dense()
    fit(model)
    return model.get_weights()


@pytest.fixture(scope="module")
def backups(tmp_path_factory):
    """Of runs that were killed after their third epoch."""
    folder = tmp_path_factory.mktemp("backups")
    killed_run(folder / "ours")
    killed_run(folder / "first", after=1)
    killed_run(folder / "keras", keras.callbacks.BackupAndRestore, double_checkpoint=True)
    killed_run(folder / "keras_first", keras.callbacks.BackupAndRestore, after=1)
    killed_run(folder / "keras_single", keras.callbacks.BackupAndRestore)
    killed_run(folder / "keras_next", keras.callbacks.BackupAndRestore, after=KILLED_AFTER + 1)
    return folder


def cut(path: pathlib.Path, share: float = 0.6) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def older(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.bkp")


def aside(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"aside.{path.name}")


# What a kill does to the weights and the metadata, and at which epoch the run goes on, from 0.
STATES = {
    "whole": ("ours", lambda w, m: None, 3),
    "metadata empty": ("ours", lambda w, m: cut(m, 0), 2),
    "metadata cut": ("ours", lambda w, m: cut(m), 2),
    "metadata missing": ("ours", lambda w, m: m.unlink(), 2),
    "metadata no numbers": ("ours", lambda w, m: m.write_text('{"epoch": null}'), 2),
    "weights empty": ("ours", lambda w, m: cut(w, 0), 2),
    "weights cut": ("ours", lambda w, m: cut(w), 2),
    "weights missing": ("ours", lambda w, m: w.unlink(), 2),
    "weights newer": ("ours", lambda w, m: shutil.copy(older(m), m), 2),
    "metadata newer": ("ours", lambda w, m: shutil.copy(older(w), w), 2),
    "weights aside cut": ("ours", lambda w, m: (shutil.copy(w, aside(w)), cut(aside(w))), 3),
    "metadata aside cut": ("ours", lambda w, m: (shutil.copy(m, aside(m)), cut(aside(m))), 3),
    "both aside": ("ours", lambda w, m: (w.rename(aside(w)), m.rename(aside(m))), 3),
    "weights renamed": ("ours", lambda w, m: (w.replace(older(w)), m.rename(aside(m))), 3),
    "older cut": ("ours", lambda w, m: (cut(older(w)), cut(older(m), 0)), 3),
    "nothing yet": ("ours", lambda w, m: shutil.rmtree(w.parent), 0),
    "empty folder": ("ours", lambda w, m: [file.unlink() for file in w.parent.iterdir()], 0),
    "first weights aside": ("first", lambda w, m: (w.rename(aside(w)), m.unlink()), 0),
    "first metadata missing": ("first", lambda w, m: m.unlink(), 0),
    "first metadata empty": ("first", lambda w, m: cut(m, 0), 1),
    "first weights cut": ("first", lambda w, m: cut(w), 0),
    "of Keras": ("keras", lambda w, m: None, 3),
    "of Keras, metadata empty": ("keras", lambda w, m: cut(m, 0), 2),
    "of Keras, metadata missing": ("keras", lambda w, m: m.unlink(), 2),
    "of Keras, weights cut": ("keras", lambda w, m: cut(w), 2),
    "of Keras, older cut": ("keras", lambda w, m: (cut(older(w)), cut(older(m), 0)), 3),
    "of Keras, weights newer": (
        "keras",
        lambda w, m: (
            shutil.copy(w, older(w)),
            shutil.copy(m, older(m)),
            shutil.copy(w.parent.with_name("keras_next") / WEIGHTS, w),
        ),
        3,
    ),
    "of Keras, copied": (
        "keras",
        lambda w, m: (shutil.copy(w, older(w)), shutil.copy(m, older(m))),
        3,
    ),
    "of Keras, first metadata missing": ("keras_first", lambda w, m: m.unlink(), 0),
    "of Keras, first metadata empty": ("keras_first", lambda w, m: cut(m, 0), 1),
    "of Keras, first weights cut": ("keras_first", lambda w, m: (cut(w), m.unlink()), 0),
    "of Keras, only one, metadata empty": ("keras_single", lambda w, m: cut(m, 0), 3),
}


@pytest.mark.parametrize("state", STATES)
def test_a_run_goes_on_with_the_loss_of_one_epoch_at_most(state, backups, whole, tmp_path, capsys):
    name, kill, epoch = STATES[state]
    for other in backups.iterdir():
        shutil.copytree(other, tmp_path / other.name)
    folder = tmp_path / name
    kill(folder / WEIGHTS, folder / METADATA)
    is_new = not folder.exists() or not any(folder.iterdir())
    model = dense()
    told = fit(model, BackupAndRestore(folder))
    assert told.epoch[0] == epoch
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == (not is_new)
    assert is_new or f"Resuming at epoch {epoch + 1} of 5." in printed[0]
    if not is_new and epoch < (1 if "first" in name else 3):
        assert "was cut short, so that at most one epoch is trained again" in printed[0]
    # Keras's backups do not have the state of Dropout.
    if (name in ("ours", "first") or epoch == 0) and state != "first metadata empty":
        for weight, expected in zip(model.get_weights(), whole, strict=True):
            np.testing.assert_array_equal(weight, expected)
    assert not folder.exists()


LOST = {
    "both weights": ("ours", lambda w, m: (cut(w), cut(older(w)))),
    "all weights": ("keras_single", lambda w, m: cut(w)),
}


@pytest.mark.parametrize("state", LOST)
def test_what_would_lose_more_than_an_epoch_is_refused(state, backups, tmp_path):
    name, damage = LOST[state]
    shutil.copytree(backups / name, tmp_path / name)
    damage(tmp_path / name / WEIGHTS, tmp_path / name / METADATA)
    model = dense()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"No backup in .* is whole. Received: .*after 3 epochs"):
        fit(model, BackupAndRestore(tmp_path / name))
    for weight, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("double", [True, False])
def test_keras_resumes_what_this_writes_and_a_second_copy_is_kept_if_asked_for(double, tmp_path):
    killed_run(tmp_path / "ours", double_checkpoint=double)
    names = {WEIGHTS, METADATA}
    assert {file.name for file in (tmp_path / "ours").iterdir()} == (
        names | {f"{name}.bkp" for name in names} if double else names
    )
    told = fit(dense(), keras.callbacks.BackupAndRestore(str(tmp_path / "ours")))
    assert told.epoch == [3, 4]


def test_a_finished_backup_is_gone_or_has_all_epochs(tmp_path, capsys):
    fit(dense(), BackupAndRestore(tmp_path / "gone"))
    assert not any(tmp_path.iterdir())
    kept = BackupAndRestore(tmp_path / "kept", delete_checkpoint=False)
    fit(dense(), kept)
    assert fit(dense(), kept).epoch == []
    assert capsys.readouterr().out == "The backup has all 5 epochs.\n"

    # What other callbacks end with is kept too, whether or not they stop fit.
    for often, patience in (("epoch", 9), ("epoch", 1), (3, 9)):
        folder, ended = tmp_path / f"best{often}{patience}", dense()
        worse = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: logs.update(score=-epoch)
        )
        best = keras.callbacks.EarlyStopping(
            "score", mode="max", patience=patience, restore_best_weights=True
        )
        fit(ended, worse, best, BackupAndRestore(folder, often, delete_checkpoint=False))
        again = dense()
        assert fit(again, BackupAndRestore(folder, often, delete_checkpoint=False)).epoch == []
        for ours, others in zip(again.get_weights(), ended.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, others)
    # Killed while it was being deleted.
    (tmp_path / "kept").rename(tmp_path / "kept.finished")
    assert fit(dense(), kept).epoch == [0, 1, 2, 3, 4]
    assert not (tmp_path / "kept.finished").exists()


def test_a_model_that_is_not_built_is_refused_before_training(tmp_path):
    model = keras.Sequential([keras.layers.Dense(4)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"'sequential.*' is not built.*before fit\(\)"):
        fit(model, BackupAndRestore(tmp_path))


def gan() -> keras.Model:
    keras.utils.set_random_seed(5)
    model = Gan(quantized("generator"), critic())
    model.compile(keras.optimizers.Adam(1e-2), keras.optimizers.Adam(1e-2), jit_compile=False)
    return model


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.slow
def test_optimizers_of_a_gan_and_the_allocations_of_its_generator_come_back(order, tmp_path):
    def callbacks(model):
        made = BMPQCallback("8x", settle_epochs=1, verbose=0), BackupAndRestore(tmp_path / "backup")
        return made[::order]

    uninterrupted = gan()
    expected = BMPQCallback("8x", settle_epochs=1, verbose=0)
    fit(uninterrupted, expected)
    model = gan()
    with pytest.raises(KilledError):
        fit(model, *callbacks(model), KillAfter(KILLED_AFTER))
    resumed = gan()
    fit(resumed, *callbacks(resumed))
    assert not resumed.built
    allocation = BMPQCallback("8x", model=resumed.generator)
    assert allocation.history == expected.history
    assert [decision["epoch"] for decision in expected.history] == [1, 2, 3, 4]
    for mine, other in (
        (resumed.generator.weights, uninterrupted.generator.weights),
        (resumed.of_critic.variables, uninterrupted.of_critic.variables),
    ):
        for variable, value in zip(mine, other, strict=True):
            np.testing.assert_array_equal(variable.numpy(), value.numpy())


@pytest.mark.slow
def test_a_kill_in_the_middle_of_an_interval_keeps_its_sums(tmp_path):
    def run(*callbacks):
        keras.utils.set_random_seed(5)
        model = compiled(quantize_model(small_model(), (2, 4), pin="ends"))
        model.fit(
            IMAGES, LABELS, batch_size=8, epochs=6, shuffle=False, verbose=0, callbacks=callbacks
        )
        return model, callbacks[0].history

    def allocation():
        return BMPQCallback("8x", interval_epochs=2, verbose=0)

    whole, expected = run(allocation())
    for after in (2, 4):
        with pytest.raises(KilledError):
            run(allocation(), BackupAndRestore(tmp_path / str(after)), KillAfter(after))
        model, history = run(allocation(), BackupAndRestore(tmp_path / str(after)))
        assert history == expected
        assert [s.bits for s in model_kernels(model)] == [s.bits for s in model_kernels(whole)]


KILL_INSIDE = """
import os, signal, sys, threading
sys.path[:0] = {paths!r}
from test_backup import *
from bmpq_tf.training import backup

write, renames = keras.Model.save_weights, []

def killed(self, path, overwrite=True):
    if backup_number() == 2:
        if {where!r} == "weights":
            # While the file grows.
            threading.Thread(target=lambda: kill_when(path)).start()
    return write(self, path, overwrite=overwrite)

def backup_number():
    return len(renames) // 2

def kill_when(path):
    while not os.path.exists(path) or os.path.getsize(path) < 100:
        pass
    os.kill(os.getpid(), signal.SIGKILL)

def rename(source, target, overwrite=False):
    if ".bkp" not in target:
        renames.append(target)
    if backup_number() == 2 and {where!r} == os.path.basename(target):
        os.kill(os.getpid(), signal.SIGKILL)
    os.replace(source, target)

keras.Model.save_weights = killed
backup._files.rename, kept = rename, backup._files.rename
fit(dense(), BackupAndRestore({folder!r}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "where", ["weights", f"{WEIGHTS}.bkp", f"{METADATA}.bkp", WEIGHTS, METADATA]
)
def test_a_kill_inside_the_write_loses_one_epoch_at_most(where, whole, tmp_path, capsys):
    here = pathlib.Path(__file__).parent
    script = KILL_INSIDE.format(
        paths=[str(here), str(here.parent)], where=where, folder=str(tmp_path / "backup")
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=600)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    left = {file.name for file in (tmp_path / "backup").iterdir()}
    assert any(name.startswith("aside.") for name in left)
    model = dense()
    assert fit(model, BackupAndRestore(tmp_path / "backup")).epoch[0] in (2, 3)
    assert "was cut short" in capsys.readouterr().out
    for weight, expected in zip(model.get_weights(), whole, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_what_is_noted_belongs_to_the_weights(backups):
    noted = json.loads((backups / "ours" / METADATA).read_text())
    assert (noted["epoch"], len(noted["weights"])) == (3, 64)
    assert tf.io.gfile.exists(str(backups / "ours" / WEIGHTS))


def test_a_save_within_an_epoch_notes_the_epoch_that_it_is_in(tmp_path):
    killed_run(tmp_path)

    class KillAfterBatch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KilledError

    with pytest.raises(KilledError):
        fit(dense(), BackupAndRestore(str(tmp_path), save_freq=2), KillAfterBatch())
    assert json.loads((tmp_path / METADATA).read_text())["epoch"] == KILLED_AFTER


def test_the_last_of_several_backups_within_an_epoch_is_resumed(tmp_path, capsys):
    class KillAfterBatch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == self.batch:
                raise KilledError

    def killed(batch):
        model, kill = dense(), KillAfterBatch()
        kill.batch = batch
        with pytest.raises(KilledError):
            fit(model, BackupAndRestore(str(tmp_path), save_freq=2), kill)
        return model.get_weights()

    killed(3)
    # That counts its batches from 0 again.
    last = killed(1)
    capsys.readouterr()
    resumed = dense()
    with pytest.raises(KilledError):
        fit(resumed, BackupAndRestore(str(tmp_path)), KillBefore())
    assert capsys.readouterr().out == "Resuming at epoch 1 of 5.\n"
    for weight, expected in zip(resumed.get_weights(), last, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_a_backup_left_aside_outlives_a_second_kill(tmp_path):
    killed_run(tmp_path)
    for name in (WEIGHTS, METADATA):
        (tmp_path / name).rename(aside(tmp_path / name))
    with pytest.raises(KilledError):
        fit(dense(), BackupAndRestore(str(tmp_path)), KillBefore())
    # Inside the next write.
    aside(tmp_path / WEIGHTS).write_bytes(b"half")
    assert fit(dense(), BackupAndRestore(str(tmp_path))).epoch == [3, 4]


def test_what_a_fit_resumed_at_does_not_cut_the_next_one_short(tmp_path):
    killed_run(tmp_path)
    model = dense()
    assert fit(model, BackupAndRestore(str(tmp_path))).epoch == [3, 4]
    assert fit(model, epochs=2).epoch == [0, 1]
    # Killed behind its last epoch, so that nothing is left to train.
    killed_run(tmp_path, after=EPOCHS)
    assert fit(model, BackupAndRestore(str(tmp_path))).epoch == []
    assert fit(model, epochs=2).epoch == [0, 1]
    killed_run(tmp_path)
    with pytest.raises(KilledError):
        fit(model, BackupAndRestore(str(tmp_path)), KillAfter(4))
    assert fit(model, epochs=2).epoch == [0, 1]
    # Keras's own leaves it there.
    killed_run(tmp_path / "keras", keras.callbacks.BackupAndRestore)
    fit(model, keras.callbacks.BackupAndRestore(str(tmp_path / "keras")))
    other = BackupAndRestore(str(tmp_path / "other"))
    assert fit(model, other, epochs=2).epoch == [0, 1]
