"""The log of a training, in every form in which people have it."""

import keras
import pytest

from bmpq_tf.reporting.logs import read_history

pytestmark = pytest.mark.quick

_LOSSES = {"loss": (2.0, 1.0), "val_loss": (2.5, None)}
_ALLOCATIONS = [{"epoch": 1, "bits": {"a": 2}, "sensitivity": {"a": 0.5}}]


def _fitted() -> keras.callbacks.History:
    history = keras.callbacks.History()
    history.history = {"loss": [2.0, 1.0], "val_loss": [2.5, float("nan")]}
    history.epoch = [3, 4]
    return history


@pytest.mark.parametrize(
    ("given", "epochs"),
    [
        (_fitted(), (4, 5)),
        (_fitted().history, (1, 2)),
        ([{"epoch": 0, "loss": 2.0, "val_loss": 2.5}, {"epoch": 1, "loss": 1.0}], (1, 2)),
        ([{"loss": 2.0, "val_loss": 2.5}, {"loss": 1.0, "val_loss": "none"}], (1, 2)),
    ],
)
def test_a_log_is_read_in_every_form(given, epochs):
    assert read_history(given) == (_LOSSES, epochs, None)


def test_allocations_are_told_from_a_log():
    assert read_history(_ALLOCATIONS) == ({}, (), _ALLOCATIONS)
    assert read_history(None) == ({}, (), None)
    assert read_history([]) == ({}, (), None)


def test_values_of_every_second_epoch_have_gaps_between():
    columns, epochs, _ = read_history({"loss": [4, 3, 2, 1, 0], "val_loss": [5, 6]})
    assert columns["val_loss"] == (None, 5.0, None, 6.0, None)
    assert epochs == (1, 2, 3, 4, 5)


def test_a_column_without_values_is_left_out():
    columns, epochs, _ = read_history({"loss": [2.0, 1.0], "val_loss": []})
    assert (list(columns), epochs) == (["loss"], (1, 2))


def test_values_whose_epochs_are_not_known_are_left_out():
    # Every third epoch or every fourth?
    with pytest.warns(UserWarning, match="The epochs of 'val_loss' are not known"):
        columns, epochs, _ = read_history({"loss": list(range(8)), "val_loss": [5, 6]})
    assert (list(columns), len(epochs)) == (["loss"], 8)


@pytest.mark.parametrize("given", [3, "loss", [1, 2], {"loss": 1.0}, {"loss": "12"}])
def test_what_is_no_log_is_refused(given):
    with pytest.raises(ValueError, match="history is what fit"):
        read_history(given)
