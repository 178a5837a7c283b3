"""Small networks with their ends pinned, and not: MLPerf Tiny's DS-CNN and autoencoder, trained
alike on spoken digits.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from bmpq_research.datasets.spoken_digits import mel_vectors, spoken_digits
from bmpq_research.models import autoencoder, ds_cnn
from bmpq_tf import BMPQCallback, InfeasibleBudgetError, kernel_table, quantize_model

CANDIDATES = (2, 4, 8)


@dataclasses.dataclass(frozen=True)
class Task:
    """A network, its data, and the recipe of all its runs.

    Attributes:
        build: makes the float model.
        train, test: inputs and targets.
        loss, metrics: as `compile` takes them.
        learning_rate, batch_size: of Adam; the rate falls as a cosine.
    """

    build: Callable[[], keras.Model]
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    loss: str | keras.losses.Loss
    metrics: tuple[str, ...]
    learning_rate: float
    batch_size: int


def keyword_task(data_dir: str | None) -> Task:
    """Returns the DS-CNN on the ten words; its judge is accuracy."""
    data = spoken_digits("spoken_digits", data_dir)
    features = data.train[0]
    mean, deviation = (part(features, (0, 1), keepdims=True) for part in (np.mean, np.std))
    train, test = (
        ((inputs - mean) / deviation, labels) for inputs, labels in (data.train, data.test)
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return Task(lambda: ds_cnn(num_classes=10), train, test, loss, ("accuracy",), 3e-3, 50)


def reconstruction_task(data_dir: str | None) -> Task:
    """Returns the autoencoder on vectors of speech; its judge is the mean squared error."""
    train, test = mel_vectors(data_dir)
    return Task(autoencoder, (train, train), (test, test), "mse", (), 1e-3, 256)


TASKS = {"autoencoder": reconstruction_task, "ds_cnn": keyword_task}


def run(task: Task, kind: str, pin: str | None, epochs: int, seed: int) -> dict[str, Any]:
    """Trains from scratch and judges on the test set.

    Args:
        task: what to train.
        kind: `"float"`, `"int8"` (8 bits everywhere) or a budget.
        pin: as `quantize_model` takes it, for a budget.
        epochs: of the run.
        seed: of weights and order.

    Returns:
        The test's figures, the compression and the widths, or the `error` of a budget that cannot
        be met.
    """
    keras.utils.set_random_seed(seed)
    model = task.build()
    if kind != "float":
        widths = (8,) if kind == "int8" else CANDIDATES
        model = quantize_model(model, widths, pin=None if kind == "int8" else pin)
    keras.utils.set_random_seed(seed)
    steps = -(-len(task.train[0]) // task.batch_size) * epochs
    rate: Any = keras.optimizers.schedules.CosineDecay(task.learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(rate), task.loss, metrics=list(task.metrics), jit_compile=False
    )
    callbacks = [] if kind in ("float", "int8") else [BMPQCallback(kind, verbose=0)]
    try:
        model.fit(
            *task.train,
            batch_size=task.batch_size,
            epochs=epochs,
            verbose=0,  # pyright: ignore[reportArgumentType]
            callbacks=callbacks,
        )
    except InfeasibleBudgetError as error:
        return {"error": str(error)}
    judged = model.evaluate(*task.test, batch_size=300, verbose=0, return_dict=True)  # pyright: ignore[reportArgumentType]
    rows = kernel_table(model)
    bits = sum(row.weights * row.bits for row in rows)
    return {
        **judged,
        "compression": 32 * sum(row.weights for row in rows) / bits,
        "bits": [row.bits for row in rows],
    }
