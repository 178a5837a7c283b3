"""Files to damage: a small network's, of every kind, and some that are evil from the start."""

import io
import json
import os
import pathlib
import pickle
import warnings
import zipfile

import keras
import numpy as np

import bmpq_tf

# Whoever unpickles this, or imports or calls what a config names, leaves a file of this name.
MARKER = "code_was_run"


def write_originals(folder: pathlib.Path) -> None:
    """Writes `good.*`: an `.npz` and `.npy` of data, models as `.keras` and `.h5`, `.tflite` files
    of each kind; and `evil_*`, which nothing may run or trust.
    """
    generator = np.random.default_rng(0)
    images = generator.standard_normal((48, 6, 6, 2)).astype("float32")
    labels = generator.integers(0, 3, 48)
    np.savez(folder / "good.npz", images=images, labels=labels)
    np.save(folder / "good.npy", images)
    model = _trained(images, labels)
    model.save(folder / "good.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _network().save(folder / "good.h5")
    for kind in ("size", "latency", "integer", *_micro()):
        calibration = images if kind in ("integer", "micro") else None
        bmpq_tf.export_tflite(
            model,
            folder / f"good_{kind}.tflite",
            optimize_for=kind,
            verify_with=images,
            calibrate_with=calibration,
            tolerance=None if kind == "size" else 0.9,
        )
    _write_evil(folder, images, labels)


def _micro() -> list[str]:
    from bmpq_tf.export.micro.operators import is_installed

    return ["micro"] if is_installed() else []


def _network() -> keras.Model:
    layers = keras.layers
    image = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Flatten(name="flatten")(layers.MaxPooling2D(name="pool")(x))
    return keras.Model(image, layers.Dense(3, name="head")(x), name="small")


def _trained(images: np.ndarray, labels: np.ndarray) -> keras.Model:
    model = bmpq_tf.quantize_model(_network(), (2, 3, 4, 8))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    callback = bmpq_tf.BMPQCallback("6x", verbose=0)
    model.fit(images, labels, epochs=2, verbose=0, callbacks=[callback])
    return model


class _Evil:
    """Runs code where it is unpickled."""

    def __init__(self, path: pathlib.Path):
        self._path = str(path)

    def __reduce__(self):
        return (open, (self._path, "w"))


def _write_evil(folder: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> None:
    marker = folder / MARKER
    (folder / "evil_pickle.npz").write_bytes(pickle.dumps(_Evil(marker)))
    (folder / "evil_pickle.npy").write_bytes(pickle.dumps(_Evil(marker)))
    with zipfile.ZipFile(folder / "evil_entry.npz", "w") as archive:
        for name, array in (("labels", labels), ("images", np.array([_Evil(marker)], object))):
            written = io.BytesIO()
            np.lib.format.write_array(written, array, allow_pickle=True)
            archive.writestr(f"{name}.npy", written.getvalue())
    np.savez(folder / "evil_words.npz", images=np.array(["a", "b"]), labels=np.arange(2))
    _huge_header(folder / "evil_huge.npz")
    _write_evil_models(folder, marker)
    # An archive of the other kind under each name, and a link that leads nowhere.
    for one, other in (("keras", "npz"), ("npz", "keras"), ("tflite", "npz"), ("h5", "keras")):
        (folder / f"evil_other.{one}").write_bytes((folder / f"good.{other}").read_bytes())
    (folder / "evil_folder.npz").mkdir()


def _huge_header(path: pathlib.Path) -> None:
    """Arrays that say they hold more than any memory."""
    header = io.BytesIO()
    told = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 64)}
    np.lib.format.write_array_header_1_0(header, told)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("images", "labels"):
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(64))


def _write_evil_models(folder: pathlib.Path, marker: pathlib.Path) -> None:
    """Models that name a class of a module beside them, a function of Python's, and a lambda."""
    module = "evil_module"
    (folder / f"{module}.py").write_text(f"open({str(marker)!r}, 'w')\nclass Layer: pass\n")
    image = keras.Input((6, 6, 2), name="image")
    name_of_marker = str(marker)
    run = keras.layers.Lambda(lambda x: (os.mkdir(name_of_marker), x)[1], name="run")
    for name, output in (("evil_lambda", run(image)), ("plain", keras.layers.ReLU()(image))):
        keras.Model(image, output).save(folder / f"{name}.keras")
    for name, where, what in (
        ("class", module, "Layer"),
        ("function", "os", "system"),
        ("inner", "keras.src.utils.file_utils", "makedirs"),
    ):
        _with_class(folder, name, where, what)
    # Building the model has run the lambda.
    if marker.is_dir():
        marker.rmdir()


def _with_class(folder: pathlib.Path, name: str, module: str, class_name: str) -> None:
    with zipfile.ZipFile(folder / "plain.keras") as archive:
        entries = {one: archive.read(one) for one in archive.namelist()}
    config = json.loads(entries["config.json"])
    config["config"]["layers"][1].update(module=module, class_name=class_name, registered_name=None)
    entries["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(folder / f"evil_{name}.keras", "w") as archive:
        for one, data in entries.items():
            archive.writestr(one, data)
