"""What files hold: the best epoch's widths, models that serve, files of older and newer versions,
and none of it unsafe.
"""

import json
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from conftest import compiled, small_data, small_model

from bmpq_research.models import build_model
from bmpq_tf import BMPQCallback, dequantize_model, export_tflite, quantize_model
from bmpq_tf.model.kernels import allocation_history, model_kernels
from bmpq_tf.tuning import recipe

pytestmark = pytest.mark.apart

IMAGES, LABELS = small_data()
VERSION_1 = pathlib.Path(__file__).parent / "files" / "version_1.keras"
# What files/make_version_1.py printed.
VERSION_1_ANSWERS = [
    [-0.4386276304721832, 0.17811115086078644],
    [-0.32808491587638855, 0.1190980076789856],
]
BEST = 2


class Swing(keras.callbacks.Callback):
    """Gives one kernel other widths than the allocation, so that the best epoch's are not the last
    one's, and scores the epochs.
    """

    def on_epoch_begin(self, epoch, logs=None):
        (hidden,) = (state for state in model_kernels(self.model) if state.layer.name == "hidden")
        hidden.quantizer.set_width(3 if epoch == BEST else 2, hidden.variable)

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = float(epoch == BEST)
        if epoch == BEST:
            self.best = state_of(self.model)


def state_of(model) -> tuple[dict, list, np.ndarray]:
    widths = {state.kernel.path: state.bits for state in model_kernels(model)}
    scales = [
        np.asarray(state.quantizer.scale(state.variable.value)) for state in model_kernels(model)
    ]
    return widths, scales, model.predict(IMAGES, verbose=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model after five epochs of which the third was best, that epoch's state, and a folder of
    what was saved.
    """
    folder = tmp_path_factory.mktemp("checkpoints")
    swing, best = Swing(), {"monitor": "score", "mode": "max"}
    model = compiled(quantize_model(small_model(), (2, 3, 4), pin="ends"))
    saving = [
        keras.callbacks.ModelCheckpoint(folder / "best.keras", save_best_only=True, **best),
        keras.callbacks.ModelCheckpoint(
            folder / "best.weights.h5", save_best_only=True, save_weights_only=True, **best
        ),
        keras.callbacks.EarlyStopping(patience=9, restore_best_weights=True, **best),
    ]
    model.fit(
        IMAGES,
        LABELS,
        epochs=5,
        verbose=0,
        callbacks=[BMPQCallback("10x", settle_epochs=1, verbose=0), swing, *saving],
    )
    model.export(folder / "served", verbose=False)
    return model, swing.best, folder


def restored(model, folder):
    return model


def from_file(model, folder):
    return keras.models.load_model(folder / "best.keras", safe_mode=True)


def from_weights(model, folder):
    fresh = quantize_model(small_model(), (2, 3, 4), pin="ends")
    fresh.load_weights(folder / "best.weights.h5")
    return fresh


@pytest.mark.parametrize("come_back", [restored, from_file, from_weights])
def test_the_best_epochs_weights_come_back_with_their_widths_and_scales(trained, come_back):
    model, (widths, scales, answers), folder = trained
    assert widths["hidden/kernel"] == 3
    again, their_scales, their_answers = state_of(come_back(model, folder))
    assert again == widths
    for scale, theirs in zip(scales, their_scales, strict=True):
        np.testing.assert_array_equal(theirs, scale)
    np.testing.assert_allclose(their_answers, answers, rtol=1e-6, atol=1e-6)


class Falling(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = -epoch


def test_a_checkpoint_of_the_warm_up_knows_its_budget(tmp_path):
    model, best = compiled(quantize_model(small_model())), {"monitor": "score", "mode": "max"}
    path, weights = tmp_path / "best.keras", tmp_path / "best.weights.h5"
    saving = [
        keras.callbacks.ModelCheckpoint(path, save_best_only=True, **best),
        keras.callbacks.ModelCheckpoint(
            weights, save_best_only=True, save_weights_only=True, **best
        ),
    ]
    callbacks = [Falling(), BMPQCallback("10x", verbose=0), *saving]
    model.fit(IMAGES, LABELS, epochs=3, verbose=0, callbacks=callbacks)
    model.load_weights(weights)
    for one in (model, keras.models.load_model(path)):
        with pytest.raises(ValueError, match=r"over its budget.*Received: budget='10x'"):
            export_tflite(one, tmp_path / "model.tflite", overwrite=True)
        assert export_tflite(one, tmp_path / "model.tflite", budget="2x", overwrite=True)


FRESH = """
import sys, keras, numpy as np, tensorflow as tf
folder = sys.argv[1]
images = np.load(folder + "/images.npy")
served = tf.saved_model.load(folder + "/served")
np.save(folder + "/answers.npy", served.serve(images))
assert "bmpq_tf" not in sys.modules
keras.models.load_model(folder + "/best.keras")
"""


@pytest.mark.slow
def test_a_process_without_bmpq_tf_serves_the_exported_model_and_cannot_load_the_other(
    trained,
):
    model, _, folder = trained
    np.save(folder / "images.npy", IMAGES)
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(folder)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "Could not locate class 'QuantConv2D'. Make sure custom classes" in done.stderr
    np.testing.assert_allclose(
        np.load(folder / "answers.npy"), model.predict(IMAGES, verbose=0), rtol=1e-5, atol=1e-6
    )


ELSEWHERE = """
import sys, keras, numpy as np
folder = sys.argv[1]
images = np.load(folder + "/images.npy")
plain = keras.models.load_model(folder + "/plain.keras", compile=False)
np.save(folder + "/plain.npy", plain.predict(images, verbose=0))
assert "bmpq_tf" not in sys.modules
import bmpq_tf
quantized = keras.models.load_model(folder + "/quantized.keras")
np.save(folder + "/quantized.npy", quantized.predict(images, verbose=0))
"""


@pytest.mark.slow
def test_another_process_loads_models_of_a_search_and_their_plain_copies_without_bmpq_tf(tmp_path):
    model = quantize_model(build_model("resnet20", (8, 8, 3), 4, channel_multiplier=0.25), (2, 4))
    compiled(model, optimizer=recipe.sgd(recipe.learning_rate(0.1, 10, 1, "step")))
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    model.fit(images, np.arange(8) % 4, verbose=0)
    np.save(tmp_path / "images.npy", images)
    model.save(tmp_path / "quantized.keras")
    dequantize_model(model).save(tmp_path / "plain.keras")
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(tmp_path)], check=True, timeout=300)
    for name in ("plain", "quantized"):
        np.testing.assert_allclose(
            np.load(tmp_path / f"{name}.npy"),
            model.predict(images, verbose=0),
            rtol=1e-4,
            atol=1e-5,
        )


def test_a_file_of_format_1_loads_and_trains_on():
    model = keras.models.load_model(VERSION_1, safe_mode=True)
    assert {state.layer.name: state.bits for state in model_kernels(model)} == {
        "wide": 2,
        "head": 8,
    }
    assert [decision["epoch"] for decision in allocation_history(model)] == [1, 2]
    # As the file has them, each in a variable of its own.
    sums = model_kernels(model)[1].quantizer.accumulated()
    assert (sums.bit_gradient, sums.uses_seen, sums.uses_finite) == (
        pytest.approx(0.040838532),
        1,
        1,
    )
    np.testing.assert_allclose(sums.gradient_abs, [[0.12200608, 0.39908698]], rtol=1e-6)
    np.testing.assert_allclose(sums.gradient_square, [[0.01925041, 0.20838512]], rtol=1e-6)
    x = np.linspace(-1, 1, 32).reshape(8, 4).astype("float32")
    np.testing.assert_allclose(model.predict(x[:2], verbose=0), VERSION_1_ANSWERS, rtol=1e-5)
    model.fit(x, x[:, :2], epochs=3, verbose=0, callbacks=[BMPQCallback("7x", verbose=0)])
    assert len(allocation_history(model)) == 4


def test_a_file_of_a_newer_version_says_what_to_do(tmp_path):
    def newer(part):
        if isinstance(part, dict):
            return {key: 99 if key == "version" else newer(value) for key, value in part.items()}
        return [newer(value) for value in part] if isinstance(part, list) else part

    with zipfile.ZipFile(VERSION_1) as old, zipfile.ZipFile(tmp_path / "newer.keras", "w") as file:
        for name in old.namelist():
            data = old.read(name)
            file.writestr(
                name, json.dumps(newer(json.loads(data))) if name == "config.json" else data
            )
    with pytest.raises(
        (TypeError, ValueError),
        match=r"Received: version=99.*Install the newer bmpq_tf that saved it",
    ):
        keras.models.load_model(tmp_path / "newer.keras")
