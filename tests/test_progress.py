"""Long work shows on a terminal how far it is and how much time is left, and nothing elsewhere."""

import contextlib
import os
import re
import sys
import threading
import time

import keras
import numpy as np
import pytest
from conftest import compiled, small_data, small_model

from bmpq_tf import export_tflite, progress, quantize_model
from bmpq_tf.export.verification.inputs import batch_count
from bmpq_tf.training.epochs_shown import epochs_shown

_SHOW_CURSOR = "\x1b[?25h"


class Terminal:
    """A pseudo-terminal in standard error's place, and what was written to it."""

    def __init__(self):
        self._master, slave = os.openpty()
        self.stream = os.fdopen(slave, "w")
        self._read = b""
        self._reader = threading.Thread(target=self._take, daemon=True)
        self._reader.start()

    def _take(self):
        try:
            while part := os.read(self._master, 65536):
                self._read += part
        except OSError:
            # All that wrote to it have closed it.
            return

    @contextlib.contextmanager
    def __call__(self):
        """Pytest takes standard error for itself before each test."""
        before, sys.stderr = sys.stderr, self.stream
        try:
            yield
        finally:
            sys.stderr = before

    def text(self) -> str:
        self.close()
        return self._read.decode()

    def close(self) -> None:
        if not self.stream.closed:
            self.stream.close()
            self._reader.join(10)
            os.close(self._master)


@pytest.fixture
def terminal(monkeypatch):
    for name, value in (("TERM", "xterm"), ("COLUMNS", "120")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    made = Terminal()
    yield made
    made.close()


def work(verbose=1):
    with progress.shown("Counting", verbose=verbose) as outer:
        outer.at("slowly")
        for number in progress.counted(range(10)):
            time.sleep(0.08)
            if number == 5:
                print("said in between", file=sys.stderr)
        with progress.shown("Inside") as inner:
            inner.count(4)
            inner.reached(3)
            time.sleep(0.3)


@pytest.mark.quick
def test_a_terminal_shows_counts_and_the_time_that_is_left_and_is_clean_in_the_end(terminal):
    with terminal():
        work()
    told = terminal.text()
    assert re.search(r"Counting: slowly .* [1-9] of 10 about [01] s left", told)
    assert re.search(r"Inside .* 3 of 4 about 0 s left", told)
    assert "said in between\r\n" in told
    assert told.rindex(_SHOW_CURSOR) > told.rindex("Counting")


@pytest.mark.quick
def test_nothing_is_shown_elsewhere_and_where_it_is_not_wanted(terminal, capsys, monkeypatch):
    with terminal():
        work(verbose=0)
        monkeypatch.setattr(progress, "SECONDS", 5.0)
        work()
    assert terminal.text() == "said in between\r\n" * 2
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    work()
    assert capsys.readouterr() == ("", "said in between\n")


@pytest.mark.quick
def test_an_error_leaves_the_terminal_as_it_was(terminal):
    def fail():
        with progress.shown("Failing"):
            time.sleep(0.3)
            raise KeyError("early")

    with terminal():
        with pytest.raises(KeyError, match="early"):
            fail()
        with progress.shown("Working"):
            time.sleep(0.3)
    told = terminal.text()
    assert told.index("Failing") < told.index(_SHOW_CURSOR) < told.index("Working")
    assert told.rstrip().removesuffix(_SHOW_CURSOR).endswith("\x1b[2K")


@pytest.mark.quick
def test_items_pass_through_and_their_errors_too(terminal):
    def items():
        yield 1
        raise ValueError("no more")

    assert list(progress.counted([3, 4])) == [3, 4]
    with terminal(), progress.shown("Items"), pytest.raises(ValueError, match="no more"):
        list(progress.counted(items()))


@pytest.mark.quick
def test_times_in_words():
    told = [progress.duration(seconds) for seconds in (0.4, 59.6, 83, 2 * 3600 + 61)]
    assert told == ["0 s", "1 min 0 s", "1 min 23 s", "2 h 1 min"]


def test_a_training_shows_its_epochs_where_it_began(terminal):
    images, labels = small_data()
    layers = [keras.Input((6, 6, 2)), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = compiled(keras.Sequential(layers))
    with terminal(), epochs_shown("Training 'small'") as epochs_done:
        options = {"initial_epoch": 3, "epochs": 30, "batch_size": 2, "verbose": 0}
        model.fit(images, labels, callbacks=[epochs_done], **options)
    seen = re.findall(r"Training 'small' .* (\d+) of 30 about (\d+) s left", terminal.text())
    assert seen
    assert all(int(epoch) >= 3 for epoch, _ in seen)


def test_an_export_shows_its_stages_and_how_many_inputs_it_has_verified(terminal, tmp_path):
    model = quantize_model(small_model(), pin=None)
    images, _ = small_data(2000)
    with terminal():
        export_tflite(model, tmp_path / "model.tflite", verify_with=images)
    told = terminal.text()
    assert "Export of 'small': convert, stage 2 of 10" in told
    assert re.search(r"verify, stage 9 of 10 .* \d+ of 63", told)


def test_the_number_of_batches_is_known_before_where_it_can_be():
    import tensorflow as tf

    model, images = small_model(), np.zeros((70, 6, 6, 2), "float32")
    data = tf.data.Dataset.from_tensor_slices(images).batch(8)
    counts = [
        batch_count(model, given)
        for given in (images, [images], {"image": images}, data, iter([images]), None)
    ]
    assert counts == [3, 3, 3, 9, None, None]
    assert batch_count(model, data.filter(lambda batch: True)) is None
