"""Files that are damaged, or another's: one line says what is wrong, and nothing in them is run.

`tests/research/test_damage.py` gives the commands hundreds of them.
"""

import io
import json
import pathlib
import pickle
import zipfile

import keras
import numpy as np
import pytest
from conftest import small_data, small_model

from bmpq_tf import quantize_model
from bmpq_tf.cli import models
from bmpq_tf.cli.arrays import load_arrays, load_inputs
from bmpq_tf.cli.models import load_model
from bmpq_tf.emulation import session
from bmpq_tf.export.converter.convert import to_float_tflite
from bmpq_tf.export.tflite import editing, flatbuffer
from bmpq_tf.export.tflite.inspection import UnreadableFileError, inspect_content
from bmpq_tf.export.verification.runtimes import runtime_apart

IMAGES, LABELS = small_data(8)


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def entries_of(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_entries(path, entries: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    quantize_model(small_model()).save(folder / "good.keras")
    np.savez(folder / "good.npz", images=IMAGES, labels=LABELS)
    return folder


def _cut(good, path):
    path.write_bytes((good / "good.npz").read_bytes()[:-200])


def _flipped(good, path):
    content = bytearray((good / "good.npz").read_bytes())
    content[400] ^= 0xFF
    path.write_bytes(content)


def _pickled(good, path):
    path.write_bytes(pickle.dumps(Evil(path.parent / "run")))


def _pickle_inside(good, path):
    written = io.BytesIO()
    held = np.array([Evil(path.parent / "run")], object)
    np.lib.format.write_array(written, held, allow_pickle=True)
    write_entries(path, {**entries_of(good / "good.npz"), "images.npy": written.getvalue()})


def _no_array(good, path):
    write_entries(path, {**entries_of(good / "good.npz"), "images.npy": b"no array"})


def _huge(good, path):
    written = io.BytesIO()
    told = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 64)}
    np.lib.format.write_array_header_1_0(written, told)
    write_entries(path, {**entries_of(good / "good.npz"), "images.npy": written.getvalue()})


ARRAYS = {
    "cut": (_cut, "The file cannot be read: File is not a zip file."),
    "flipped": (_flipped, "Array `images` cannot be read: Bad CRC-32"),
    "empty": (lambda good, path: path.write_bytes(b""), "The file cannot be read: "),
    "pickle": (_pickled, "holds Python objects, which could run code and are never loaded"),
    "pickle inside": (_pickle_inside, "`images` .* Python objects, which could run code"),
    "no array": (_no_array, "where `images` is no array"),
    "huge": (_huge, "Array `images` cannot be read: Unable to allocate"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_damaged_arrays_are_told_in_a_line(name, good, tmp_path):
    damage, message = ARRAYS[name]
    path = tmp_path / "damaged.npz"
    damage(good, path)
    model = keras.Sequential([keras.Input((6, 6, 2), name="images"), keras.layers.Flatten()])
    for load, flag in (
        (lambda: load_arrays(path), "--data"),
        (lambda: load_inputs(str(path), model, "--verify_with"), "--verify_with"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            load()
        assert "\n" not in str(caught.value)
        assert f"Received: {flag}={path}" in str(caught.value)
        assert str(caught.value).endswith(".")
    assert not (tmp_path / "run").exists()


def _changed(change):
    def write(good, path):
        entries = entries_of(good / "good.keras")
        config = json.loads(entries["config.json"])
        change(config)
        entries["config.json"] = json.dumps(config).encode()
        write_entries(path, entries)

    return write


def _names_a_class(config):
    config["config"]["layers"][1].update(
        module="evil", class_name="Layer", registered_name="evil>Layer"
    )


def _without_weights(good, path):
    entries = entries_of(good / "good.keras")
    del entries["model.weights.h5"]
    write_entries(path, entries)


def _broken_weights(good, path):
    """An archive with right checksums, of weights that HDF5 cannot read."""
    entries = entries_of(good / "good.keras")
    weights = bytearray(entries["model.weights.h5"])
    weights[200:2000] = bytes(1800)
    write_entries(path, {**entries, "model.weights.h5": bytes(weights)})


def _rotten(good, path):
    content = bytearray((good / "good.keras").read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


MODELS = {
    "rotten": (_rotten, "The model file is damaged: the checksum of its part"),
    "cut": (
        lambda good, path: path.write_bytes((good / "good.keras").read_bytes()[:5000]),
        "The model file is damaged: File is not a zip file",
    ),
    "no weights": (_without_weights, "cannot be loaded: Expected a model.weights.h5"),
    "broken weights": (_broken_weights, "The model file is damaged: "),
    "foreign class": (_changed(_names_a_class), "cannot be loaded: Could not locate class 'Layer'"),
    "arrays": (
        lambda good, path: path.write_bytes((good / "good.npz").read_bytes()),
        "cannot be loaded: .*config.json",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_damaged_model_is_told_in_a_line(name, good, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\nclass Layer: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    damage, message = MODELS[name]
    path = tmp_path / "damaged.keras"
    damage(good, path)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path, "--keras")
    assert "\n" not in str(caught.value)
    assert f"Received: --keras={path}" in str(caught.value)
    assert str(caught.value).endswith("given to bmpq_tf.export_tflite there.")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_in_a_model_is_not_run(suffix, tmp_path):
    image = keras.Input((4,))
    run = keras.layers.Lambda(lambda x: x + 1, output_shape=(4,))
    keras.Model(image, run(image)).save(tmp_path / f"evil{suffix}")
    with pytest.raises(ValueError, match="`Lambda` layer whose `function` is a Python lambda"):
        load_model(tmp_path / f"evil{suffix}")


def test_a_whole_model_is_loaded(good):
    assert load_model(good / "good.keras").name == "small"


def test_a_model_of_tfmot_is_loaded_as_the_plain_one(tmp_path):
    path = pathlib.Path(__file__).parents[1] / "conversion" / "files" / "tfmot.h5"
    layers = load_model(path).layers
    assert not [layer for layer in layers if type(layer).__name__.startswith("Quantize")]


def test_a_file_that_ends_the_runtime_ends_a_process_of_its_own():
    model = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.MaxPooling2D()])
    content = to_float_tflite(model)
    file = runtime_apart("host")(content)
    # As a crash would.
    session.beside()._process.kill()
    with pytest.raises(RuntimeError, match=r"LiteRT ended \(exit code -9\)"):
        file([IMAGES])
    # The next file has a process again.
    (answer,) = runtime_apart("host")(content)([IMAGES])
    np.testing.assert_allclose(answer, model(IMAGES), atol=1e-6)


def test_an_answer_that_never_comes_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(session, "SECONDS", 0.0)
    slow = session.Session.beside()
    with pytest.raises(RuntimeError, match="gave no answer within 0 seconds"):
        slow.versions()
    slow.close()


def test_what_bmpq_tf_wrote_into_a_file_may_be_damaged_too():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    file = flatbuffer.parse(to_float_tflite(model))
    editing.add_metadata(file, {flatbuffer.METADATA: b'{"versions": {}, "optimizd_for": "size"}'})
    with pytest.raises(UnreadableFileError, match="What bmpq_tf wrote into it is not complete"):
        inspect_content(flatbuffer.serialised(file))


def test_the_process_that_reads_weights_sees_packages_from_outside_of_the_environment(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seen = tmp_path / "seen"
    (tmp_path / "sitecustomize.py").write_text(f"open({str(seen)!r}, 'w')")
    models._damage_of_weights(tmp_path / "nowhere.h5")
    assert seen.exists()
