"""Bytes and cycles that Vela gives a model's kernels at their widths, beside what was predicted."""

import collections
import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from bmpq_research.datasets import ImageDataset
from bmpq_research.experiments.train_config import TrainConfig
from bmpq_research.experiments.training import fit, initial_model, top1
from bmpq_research.markdown import table
from bmpq_research.models import MODELS, load_reference
from bmpq_tf import (
    BMPQCallback,
    export_tflite,
    inspect_tflite,
    inspect_vela,
    quantize_model,
)
from bmpq_tf.allocation.npu_flash import encoded_bytes
from bmpq_tf.model.kernels import model_kernels

# Inputs that ranges are taken from; what they are does not change weights.
_CALIBRATION = 64


@dataclasses.dataclass(frozen=True)
class KernelSeen:
    """A kernel on the NPU.

    Attributes:
        path: its variable's.
        weights: how many.
        bits: its width.
        predicted: `encoded_bytes`, at most.
        encoded: what Vela made of it.
        cycles: Vela's estimate for its operator.
    """

    path: str
    weights: int
    bits: int
    predicted: int
    encoded: int
    cycles: int


@dataclasses.dataclass(frozen=True)
class Seen:
    """A model on the NPU.

    Attributes:
        model, run: which, and how its widths came about: `"4 bits"` for all, or a budget.
        accelerator: such as `"ethos-u55-128"`.
        kernels: those of the NPU.
        file_bytes, flash_bytes, beside_bytes, sram_bytes, seconds: as in `VelaReport`.
        accuracy: on test images, where it was trained.
    """

    model: str
    run: str
    accelerator: str
    kernels: tuple[KernelSeen, ...]
    file_bytes: int
    flash_bytes: int
    beside_bytes: int
    sram_bytes: int
    seconds: float
    accuracy: float | None = None

    @property
    def encoded(self) -> int:
        """Bytes of all weights."""
        return sum(kernel.encoded for kernel in self.kernels)

    @property
    def predicted(self) -> int:
        """Likewise, at most."""
        return sum(kernel.predicted for kernel in self.kernels)

    @property
    def excess(self) -> float:
        """By how much more was predicted, as a share of the file."""
        return (self.predicted - self.encoded) / self.file_bytes

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Seen":
        """Reads what `to_dict` gave."""
        kernels = tuple(KernelSeen(**kernel) for kernel in plain["kernels"])
        return cls(**{**plain, "kernels": kernels})


def shares(rows: Sequence[Seen]) -> dict[int, float]:
    """Returns by width which share of what was predicted came out, over all rows."""
    encoded, predicted = collections.Counter(), collections.Counter()
    for kernel in (kernel for row in rows for kernel in row.kernels):
        encoded[kernel.bits] += kernel.encoded
        predicted[kernel.bits] += kernel.predicted
    return {bits: encoded[bits] / predicted[bits] for bits in sorted(predicted)}


def centred_error(row: Seen, share: Mapping[int, float]) -> float:
    """Returns by how much more these shares predict, as a share of the file."""
    expected = sum(share[kernel.bits] * kernel.predicted for kernel in row.kernels)
    return (expected - row.encoded) / row.file_bytes


def seen(
    model: keras.Model, name: str, run: str, accelerator: str, accuracy: float | None = None
) -> Seen:
    """Exports a quantized model for an NPU and asks Vela.

    Raises:
        ModuleNotFoundError, VelaError, ExportError: as `inspect_vela` and `export_tflite`.
    """
    inputs = np.random.default_rng(0).standard_normal((_CALIBRATION, *model.input_shape[1:]))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        export_tflite(
            model,
            path,
            optimize_for="integer",
            io_dtype="int8",
            calibrate_with=inputs.astype("float32"),
            # Only the weights matter here, and they are compared one by one.
            tolerance=0.99,
        )
        told, report = inspect_tflite(path).metadata, inspect_vela(path, accelerator)
    assert told is not None
    paths = {tensor: kernel["name"] for kernel in told["kernels"] for tensor in kernel["tensors"]}
    states = {state.kernel.path: state for state in model_kernels(model)}
    kernels = []
    for kernel in report.kernels:
        state = states[paths[kernel.name]]
        kernels.append(
            KernelSeen(
                path=state.kernel.path,
                weights=kernel.count,
                bits=state.bits,
                predicted=encoded_bytes(state.kernel, state.bits),
                encoded=kernel.encoded_bytes or 0,
                cycles=kernel.cycles or 0,
            )
        )
    return Seen(
        name,
        run,
        accelerator,
        tuple(kernels),
        report.file_bytes,
        report.flash_bytes,
        report.beside_bytes,
        report.sram_bytes,
        report.seconds,
        accuracy,
    )


def trained(config: TrainConfig, dataset: ImageDataset, run: str) -> tuple[keras.Model, float]:
    """Trains a model at one width, or under a budget; returns it and its accuracy.

    Args:
        config: the model and the recipe.
        dataset: what it trains on.
        run: `"4 bits"`: all kernels at that width from the beginning; anything else is a budget.
    """
    plain = initial_model(config, dataset)
    bits = config.activation_bits or None
    if (width := uniform(run)) is not None:
        model = quantize_model(plain, (width,), pin=None, activation_bits=bits)
        callbacks = []
    else:
        model = quantize_model(plain, config.candidate_bits, activation_bits=bits)
        callbacks = [BMPQCallback(run, verbose=0)]
    fit(model, dataset, config, callbacks, "quantized", 0)
    return model, top1(model, dataset)


def uniform(run: str) -> int | None:
    """Returns the width of `"4 bits"`, `None` for a budget."""
    number, _, word = run.partition(" ")
    return int(number) if word == "bits" and number.isdigit() else None


def reference(name: str, path: str, run: str) -> keras.Model:
    """Returns a network with MLPerf Tiny's float weights, rounded to one width, not trained.

    Args:
        name: of `bmpq_research.models`.
        path: of its `.h5` file.
        run: `"4 bits"`.

    Raises:
        ValueError: the run is no width.
    """
    width = uniform(run)
    if width is None:
        raise ValueError(f"Float weights are rounded to one width. Received: {run!r}.")
    model = MODELS[name]()
    load_reference(model, path)
    return quantize_model(model, (width,), pin=None)


def markdown(rows: Sequence[Seen]) -> str:
    """Returns the table of docs/npu.md."""
    columns = ("network", "widths", "bits a weight", "weights, bytes", "predicted, at most")
    columns += ("of the file", "flash", "file", "time, ms", "accuracy")
    return table(
        columns,
        (
            (
                *(row.model, row.run),
                f"{8 * row.encoded / sum(kernel.weights for kernel in row.kernels):.2f}",
                *(f"{row.encoded:,}", f"{row.predicted:,}", f"{100 * row.excess:+.1f} %"),
                *(f"{row.flash_bytes:,}", f"{row.file_bytes:,}", f"{1e3 * row.seconds:.3f}"),
                "" if row.accuracy is None else f"{100 * row.accuracy:.1f} %",
            )
            for row in rows
        ),
    )
