"""What `BMPQCallback(log_dir=...)` writes, read back with TensorBoard's own reader."""

import importlib.util
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled, small_data

from bmpq_tf import BackupAndRestore, BMPQCallback, quantize_model
from bmpq_tf.model.allocation_plot import allocation_pixels
from bmpq_tf.model.kernels import model_kernels
from bmpq_tf.training import event_files
from bmpq_tf.training.event_files import PICTURES, RUN, SENSITIVITY, TABLE, WIDTH
from bmpq_tf.training.telling import Telling

IMAGES, LABELS = small_data()
needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed"
)
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed"
)


def read(folder) -> dict[str, dict[int, np.ndarray]]:
    """By tag and step, the last that was written; TensorBoard shows that one too."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    # Its generated classes are of an older protobuf.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events.Reload()
    return {
        tag: {event.step: tf.make_ndarray(event.tensor_proto) for event in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


def fitted(log_dir, epochs=4, callbacks=(), verbose=0):
    x = inputs = keras.Input((72,))
    for name, units in (("stem", 8), ("hidden", 6), ("head", 3)):
        x = keras.layers.Dense(units, name=name)(x)
    # Eager: nothing is traced, which would take longer than all of the steps.
    model = quantize_model(keras.Model(inputs, x), (2, 4), pin=None)
    model = compiled(model, run_eagerly=True)
    callback = BMPQCallback("9x", log_dir=log_dir, verbose=verbose)
    images = IMAGES.reshape(-1, 72)
    model.fit(
        images, LABELS, epochs=epochs, batch_size=16, verbose=0, callbacks=[callback, *callbacks]
    )
    return model, callback


def check(events, callback, epochs):
    """Every value is the history's, at the step that is its epoch."""
    history = callback.history
    paths = list(history[-1]["bits"])
    assert {tag for tag in events if tag.startswith((WIDTH, SENSITIVITY))} == {
        f"{kind}/{path}" for kind in (WIDTH, SENSITIVITY) for path in paths
    }
    for path in paths:
        widths = events[f"{WIDTH}/{path}"]
        assert sorted(widths) == list(range(epochs))
        decided = {one["epoch"]: one["bits"][path] for one in history}
        for epoch in range(min(decided), epochs):
            assert widths[epoch] == decided[max(one for one in decided if one <= epoch)]
        told = {one["epoch"]: one["sensitivity"][path] for one in history}
        np.testing.assert_allclose(
            [events[f"{SENSITIVITY}/{path}"][epoch] for epoch in told], list(told.values()), 1e-6
        )
        assert set(events[f"{SENSITIVITY}/{path}"]) == set(told)
    return history


@needs_tensorboard
@needs_matplotlib
def test_the_files_hold_the_history_beside_what_kerass_callback_writes(tmp_path):
    # With a number for update_freq, Keras's callback has TensorFlow leave steps out.
    board = keras.callbacks.TensorBoard(tmp_path, update_freq=3, write_graph=False)
    model, callback = fitted(tmp_path, callbacks=[board])
    events = read(tmp_path / RUN)
    history = check(events, callback, epochs=4)
    assert len(history) == 3

    weights = {state.kernel.path: state.kernel.weights for state in model_kernels(model)}
    average = read(tmp_path / "train")["epoch_bmpq_bits"]
    assert average
    for epoch, value in average.items():
        bits = sum(count * events[f"{WIDTH}/{path}"][epoch] for path, count in weights.items())
        assert value == pytest.approx(bits / sum(weights.values()), rel=1e-6)

    last = history[-1]["epoch"]
    table = events[TABLE][last].item().decode()
    for path, width in history[-1]["bits"].items():
        assert f"| `{path}` | " in table
        assert f" | {width} " in table
    for name, drawn in zip(PICTURES, allocation_pixels(history), strict=True):
        width, height, png = events[name][last]
        pixels = tf.io.decode_png(png).numpy()
        assert pixels.shape == (int(height), int(width), 3)
        np.testing.assert_array_equal(pixels, drawn)


@needs_tensorboard
def test_a_run_that_goes_on_after_a_kill_goes_on_in_the_curves(tmp_path):
    class Killed(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def backup():
        return BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)

    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, epochs=4, callbacks=[Killed(), backup()])
    assert max(read(tmp_path / RUN)[f"{WIDTH}/head/kernel"]) == 1
    _, callback = fitted(tmp_path, epochs=4, callbacks=[backup()])
    check(read(tmp_path / RUN), callback, epochs=4)
    assert len(list((tmp_path / RUN).iterdir())) == 2


@needs_tensorboard
def test_each_of_several_parts_is_a_run_of_its_own(tmp_path):
    fitted = keras.Sequential(name="both")
    for name in ("there", "back"):
        layers = [keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)]
        part = quantize_model(keras.Sequential(layers, name=name), pin=None)
        Telling(fitted, part, model_kernels(part), 0, str(tmp_path)).ended()
    assert {folder.name for folder in tmp_path.iterdir()} == {f"{RUN}_there", f"{RUN}_back"}


@needs_tensorboard
def test_without_matplotlib_all_but_the_picture_is_written_and_it_says_so(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(event_files, "has_pictures", lambda: False)
    _, callback = fitted(tmp_path, epochs=3, verbose=1)
    events = read(tmp_path / RUN)
    check(events, callback, epochs=3)
    assert TABLE in events
    assert not set(PICTURES) & set(events)
    said = [line for line in capsys.readouterr().out.splitlines() if "log_dir" in line]
    assert said == [
        "BMPQ log_dir gets no pictures, because matplotlib is not installed: "
        "pip install 'bmpq_tf[tensorboard]'"
    ]


@needs_tensorboard
def test_a_folder_that_cannot_be_written_to_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"log_dir cannot be written to. Received: log_dir='.*file'"):
        fitted(tmp_path / "file")
    with pytest.raises(ValueError, match=r"Received: log_dir=3"):
        BMPQCallback("10x", log_dir=3)


@needs_tensorboard
def test_a_disk_that_is_full_costs_the_curves_and_not_the_training(tmp_path, monkeypatch):
    def full(*_, **__):
        if tf.summary.should_record_summaries():
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.summary, "scalar", full)
    with pytest.warns(UserWarning, match=r"TensorBoard gets nothing more .*No space") as caught:
        _, callback = fitted(tmp_path, epochs=3)
    assert len(caught) == 1
    assert len(callback.history) == 2


def test_without_tensorboard_it_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(event_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'bmpq_tf\[tensorboard\]'"):
        BMPQCallback("10x", log_dir=tmp_path)
