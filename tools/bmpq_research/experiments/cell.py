"""Runs one cell of a grid: trains it, exports it, judges it on both splits, and returns its line of
results.
"""

import dataclasses
import datetime
import importlib.metadata
import pathlib
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from bmpq_research.experiments.after_training import file_sizes
from bmpq_research.experiments.cell_files import device_files, exported_file, judged_file
from bmpq_research.experiments.epoch_log import DivergedError
from bmpq_research.experiments.grid import Cell, file_name
from bmpq_research.experiments.methods import METHODS
from bmpq_research.experiments.splits import Splits, load_splits
from bmpq_research.experiments.training import (
    accuracy_and_loss,
    fit,
    in_float32,
    initial_model,
    made_as,
)
from bmpq_research.experiments.whose_backup import check_backup, note_backup
from bmpq_research.memory import peak_memory
from bmpq_tf.allocation.budget import InfeasibleBudgetError
from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.files import replacing
from bmpq_tf.model.activation_widths import activation_quantizers
from bmpq_tf.model.kernels import model_kernels, total_bits
from bmpq_tf.training.channels import drop_channels

_PACKAGES = ("bmpq_tf", "keras", "tensorflow", "ai-edge-litert", "litert-quantizer", "mip", "numpy")


class OtherDataError(ValueError):
    """The images are not those that the other results of a file are of."""


def run_cell(
    cell: Cell,
    budget: str,
    work: pathlib.Path,
    *,
    known_data: Mapping[str, str] | None = None,
    verbose: int = 2,
) -> dict[str, Any]:
    """Trains and judges a cell; one that was killed goes on at its last epoch.

    Args:
        cell: what to run.
        budget: its budget, a reference already looked up; `""` for methods that take none.
        work: the folder of the whole grid's backups, and of the float models that other methods
            start from.
        known_data: the fingerprints of the images that the other results are of, by data set.
        verbose: as Keras's.

    Returns:
        The figures, with `status` `"done"`; `"diverged"` with its epoch, or `"infeasible"`, with
        the reason.

    Raises:
        OtherDataError: the images are not those of the other results.
    """
    backup = work / file_name(cell.key)
    config = dataclasses.replace(
        cell.config, budget=budget or cell.config.budget, backup_dir=str(backup)
    )
    started = time.perf_counter()
    splits = load_splits(config)
    then = (known_data or {}).get(config.dataset, splits.data)
    if then != splits.data:
        raise OtherDataError(
            f"The other results are of other images. Received: {config.dataset} with "
            f"{splits.data}; they were run on {then}. "
            "Give the --data_dir of then, or another --out."
        )
    try:
        with made_as(config):
            told = {
                "status": "done",
                **_trained(dataclasses.replace(cell, config=config), splits, work, verbose),
            }
    except DivergedError as error:
        told = {"status": "diverged", "epoch": error.epoch, "reason": str(error)}
    except InfeasibleBudgetError as error:
        told = {"status": "infeasible", "reason": str(error)}
    return {
        "cell": cell.key,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
            "python": platform.python_version(),
        },
        "budget": budget or None,
        "data": splits.data,
        **told,
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": peak_memory(),
        "config": cell.settings,
    }


def forget_backup(cell: Cell, work: pathlib.Path) -> None:
    """Removes a finished cell's backup."""
    shutil.rmtree(work / file_name(cell.key), ignore_errors=True)


def float_model_path(cell: Cell, work: pathlib.Path) -> pathlib.Path:
    """Returns where the trained float model of a cell's seed is kept for the methods that start
    from it.
    """
    return work / f"{file_name(cell.named('float32'))}.keras"


def _trained(cell: Cell, splits: Splits, work: pathlib.Path, verbose: int) -> dict[str, Any]:
    owner = dataclasses.replace(cell.config, sensitivity=cell.method)
    check_backup(owner, splits.data)
    method = METHODS[cell.method]
    float_model = _float_model(cell, work) if cell.float_cell else None
    # Its seed is the training's too, so it is made whether it is started from or not.
    first = initial_model(cell.config, splits.train)
    start = float_model if method.from_float else first
    if method.make_file:
        note_backup(owner, splits.data)
        return _as_file(cell, splits, in_float32(start))
    model, callback = method.build(start, cell.config, splits.train)
    # Channels that are dropped count in a compression, as drop_channels has it.
    float_bits = sizes(model)["float_bits"]
    before: list[dict[str, float]] = []
    if cell.config.drop_channels:
        note_backup(owner, splits.data)
        wide = dataclasses.replace(cell.config, epochs=cell.config.drop_epochs)
        before = fit(model, splits.train, wide, [], "wide", verbose)
        model = drop_channels(model, cell.config.budget, cell.config.drop_channels)
    if hasattr(callback, "check"):
        callback.check(model, cell.config.epochs)
    note_backup(owner, splits.data)
    epochs = fit(
        model,
        splits.train,
        cell.config,
        [callback] if callback else [],
        "model",
        verbose,
        teacher=float_model,
    )
    if cell.part == "float32":
        with replacing(float_model_path(cell, work)) as temporary:
            model.save(temporary)
    folder = pathlib.Path(cell.config.backup_dir)
    content, exported = exported_file(model, splits, folder)
    files = {**judged_file(content, splits), **exported}
    if activation_quantizers(model):
        files |= device_files(model, splits, folder)
    told = {name: accuracy_and_loss(model, split) for name, split in splits.judged.items()}
    return {
        "accuracy": {name: accuracy for name, (accuracy, _) in told.items()},
        "loss": {name: loss for name, (_, loss) in told.items()},
        **files,
        **sizes(model, float_bits),
        "widths": {state.kernel.path: state.bits for state in model_kernels(model)},
        "allocations": callback.history if callback else [],
        **_spent(epochs, before),
    }


def _as_file(cell: Cell, splits: Splits, float_model: keras.Model) -> dict[str, Any]:
    """For methods whose outcome is a file: it is the file that is judged."""
    folder = pathlib.Path(cell.config.backup_dir)
    content, epochs = METHODS[cell.method].make_file(float_model, splits.train, cell.config, folder)
    judged = judged_file(content, splits)
    return {
        "accuracy": judged["tflite_accuracy"],
        **judged,
        **file_sizes(content),
        "allocations": [],
        **_spent(epochs),
    }


def _float_model(cell: Cell, work: pathlib.Path) -> keras.Model:
    path = float_model_path(cell, work)
    if not path.exists():
        raise FileNotFoundError(
            f"The trained float model is not there. Looked for '{path}', which {cell.float_cell} "
            f"left; {cell.key} starts from it. "
            "Take that cell's line out of the results to train it again."
        )
    return keras.models.load_model(path, compile=False)


def _spent(
    epochs: list[dict[str, float]], before: Sequence[dict[str, float]] = ()
) -> dict[str, Any]:
    """The epochs, and the time that they took with those before."""
    return {
        "epochs": epochs,
        "train_seconds": sum(epoch["seconds"] for epoch in (*before, *epochs)),
        "train_cpu_seconds": sum(epoch["cpu_seconds"] for epoch in (*before, *epochs)),
    }


def sizes(model: keras.Model, float_bits: int | None = None) -> dict[str, Any]:
    """Returns a model's parameter bits (METHOD.md, "Budgets").

    Args:
        model: float or quantized.
        float_bits: of the network that it was made of, if that is another one.
    """
    states = model_kernels(model)
    bits = total_bits(states)
    float_bits = float_bits or FLOAT_BITS * sum(state.kernel.weights for state in states)
    return {"parameter_bits": bits, "float_bits": float_bits, "compression": float_bits / bits}
