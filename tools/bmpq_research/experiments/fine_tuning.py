"""A trained float model under a budget in a few epochs: with BatchNorm frozen and not, and with all
but the head frozen at first.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from bmpq_research.benchmarks.peer_files import answers, converter_file
from bmpq_research.datasets import (
    EpochCounter,
    ImageDataset,
    batches_of,
    normalised_test_images,
    normalised_training_images,
)
from bmpq_research.experiments.recipe import sgd
from bmpq_research.experiments.training import top1
from bmpq_tf import (
    BMPQCallback,
    ends_in_softmax,
    export_tflite,
    load_keras2_model,
    quantize_model,
    run_tflite,
)
from bmpq_tf.model import keras_graph

# Of the training images, for ranges of activations.
_CALIBRATION = 500
WAYS = ("all", "frozen_batch_norm", "thawed")


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """What decides a run.

    Attributes:
        budget: as `BMPQCallback` takes it.
        way: `"all"` trains everything; `"frozen_batch_norm"` all but BatchNorm; `"thawed"` spends
            the first epoch on the last weighted layer alone, with the rest frozen.
        epochs, batch_size, learning_rate: the recipe: SGD, the rate falls as a cosine.
        activation_bits: as `quantize_model` takes it; 0 leaves activations float.
        seed: of order and augmentation.
    """

    budget: str
    way: str = "all"
    epochs: int = 2
    batch_size: int = 128
    learning_rate: float = 0.01
    activation_bits: int = 8
    seed: int = 0


def load_float(path: str) -> keras.Model:
    """Loads a float model, of Keras 3 or an `.h5` of Keras 2."""
    if path.endswith(".h5"):
        return load_keras2_model(path)
    return keras.models.load_model(path, compile=False)


def after_training(model: keras.Model, dataset: ImageDataset) -> dict[str, Any]:
    """Judges the float model, and the static int8 file that TFLite's converter makes of it."""
    examples = _calibration(dataset)
    content = converter_file(model, [examples], batch=None)
    images, labels = _judged(dataset)
    return {
        "float": top1(model, dataset),
        "int8 after training": float(np.mean(answers(content, images).argmax(-1) == labels)),
        "int8 bytes": len(content),
    }


def run(model: keras.Model, dataset: ImageDataset, config: FineTuning) -> dict[str, Any]:
    """Fine-tunes a copy of a float model and judges it and its integer file on the test images.

    Args:
        model: the trained float model; it stays as it is.
        dataset: images.
        config: how.

    Returns:
        Shares of right answers in Keras and in LiteRT, the file's bytes, compression and widths.
    """
    keras.utils.set_random_seed(config.seed)
    bits = config.activation_bits or None
    quantized = quantize_model(model, activation_bits=bits)
    if config.way == "frozen_batch_norm":
        for layer in quantized.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    callback = BMPQCallback(config.budget, settle_epochs=1, verbose=0)
    if config.way == "thawed":
        _, last = keras_graph.first_and_last(quantized)
        kept = {id(layer) for layer in last}
        frozen = [layer for layer in quantized.layers if id(layer) not in kept]
        for layer in frozen:
            layer.trainable = False
        _fit(quantized, dataset, config, 1, [])
        for layer in frozen:
            layer.trainable = True
        _fit(quantized, dataset, config, config.epochs, [callback])
    else:
        _fit(quantized, dataset, config, config.epochs, [callback])
    images, labels = _judged(dataset)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        integer = "integer" if bits else "size"
        data = {"calibrate_with": _calibration(dataset)} if bits else {}
        # All images judge the file below; after few steps it may round a little more than usual.
        report = export_tflite(
            quantized,
            path,
            optimize_for=integer,
            verify_with=images[:500],
            tolerance=0.2 if bits else None,
            **data,
        )
        right = np.asarray(run_tflite(path, images)[0]).argmax(-1) == labels
    return {
        "keras": top1(quantized, dataset),
        "litert": float(np.mean(right)),
        "bytes": report.tflite_bytes,
        "weight_bytes": report.ideal_weight_bytes,
        "bits": {one.name: one.bits for one in report.layers},
    }


def _fit(
    model: keras.Model,
    dataset: ImageDataset,
    config: FineTuning,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    counter = EpochCounter()
    batches = batches_of(dataset, batch_size=config.batch_size, seed=config.seed, counter=counter)
    optimizer = sgd(learning_rate=config.learning_rate, steps=len(batches) * epochs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not ends_in_softmax(model))
    model.compile(optimizer, loss, jit_compile=False)
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=[*callbacks, counter])


def _judged(dataset: ImageDataset) -> tuple[np.ndarray, np.ndarray]:
    batches = normalised_test_images(dataset)
    return np.concatenate([np.asarray(images) for images, _ in batches]), dataset.test[1]


def _calibration(dataset: ImageDataset) -> np.ndarray:
    batches = normalised_training_images(dataset, _CALIBRATION)
    return np.concatenate([np.asarray(images) for images, _ in batches])
