"""Collects what a report tells: of the model, of its file, of the training."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from bmpq_tf._version import __version__
from bmpq_tf.allocation.budget import Budget
from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.export.report import ExportReport, LayerReport
from bmpq_tf.model.kernels import (
    KernelState,
    allocation_history,
    compression,
    model_kernels,
    stored_budget,
)
from bmpq_tf.reporting.logs import read_history
from bmpq_tf.reporting.parity import parity_facts
from bmpq_tf.reporting.records import Facts, KernelFacts, Use
from bmpq_tf.reporting.sizes import forms, parts_of_file, parts_of_kernels
from bmpq_tf.reporting.stays_float import why_float

_COMPUTES = {
    "weight_only": "in float32, from packed weights",
    "dynamic": "in int8, activations rounded as they come",
    "static": "in integers",
    "float": "in float32",
}
_KINDS = {
    "size": "smallest file",
    "latency": "fast on phones",
    "integer": "integers only",
    "micro": "microcontroller",
}
_PACKAGES = ("keras", "tensorflow", "ai-edge-litert", "litert-quantizer", "numpy")


def collect(
    model: keras.Model,
    export_report: ExportReport | None,
    history: Any,
    *,
    accuracy: Mapping[str, float],
    file_bytes: Mapping[str, int],
    metric: str,
    budget: "str | float | Budget | None",
    title: str | None,
    command: str | None,
) -> Facts:
    """Returns everything that a report tells; arguments and errors as `write_report` has them."""
    states = model_kernels(model)
    if not states:
        raise ValueError(
            f"There is nothing to report: model '{model.name}' has no kernels. Received: "
            f"model={model!r}."
        )
    layers = _layers(states, export_report)
    logs, log_epochs, given = read_history(history)
    allocations = allocation_history(model) if given is None else given
    limit = stored_budget(model) if budget is None else Budget.parse(budget)
    # A part's file is compared with that part.
    held = [state for state in states if state.kernel.path in layers] if layers else states
    kernels = _kernels(held, why_float(model, states), layers, allocations)
    return Facts(
        title=title or model.name,
        kernels=kernels,
        epochs=tuple(int(allocation["epoch"]) + 1 for allocation in allocations),
        logs=logs,
        log_epochs=log_epochs,
        forms=forms(kernels, export_report, accuracy, file_bytes),
        metric=metric,
        parts=parts_of_file(export_report) if export_report else parts_of_kernels(kernels),
        parity=parity_facts(export_report) if export_report else (),
        budget=str(limit) if limit else "",
        # The budget that was trained for is the whole model's.
        uses=_uses(limit, states if budget is None else held, export_report) if limit else (),
        about=_about(export_report, command),
        compression=compression(held),
        file=pathlib.Path(export_report.path).name if export_report else "",
        alike=export_report.parity.agreement
        if export_report and export_report.parity.compared
        else None,
    )


def _layers(states: Sequence[KernelState], report: ExportReport | None) -> dict[str, LayerReport]:
    """What the export tells of each kernel, by its path.

    Raises:
        ValueError: it is of another model, or of another state of this one.
    """
    if report is None:
        return {}
    present = {state.kernel.path: state for state in states}
    for layer in report.layers:
        state = present.get(layer.name)
        if state is None or (state.bits, state.kernel.weights) != (layer.bits, layer.weights):
            now = f"{state.kernel.weights} weights at {state.bits} bits" if state else "none"
            raise ValueError(
                "The export_report is not of this model as it is now. Received: a report with "
                f"'{layer.name}', {layer.weights} weights at {layer.bits} bits; the model has "
                f"{now}. Export the model again."
            )
    return {layer.name: layer for layer in report.layers}


def _kernels(
    states: Sequence[KernelState],
    reasons: Mapping[str, str],
    layers: Mapping[str, LayerReport],
    allocations: Sequence[dict],
) -> tuple[KernelFacts, ...]:
    found = []
    for state in states:
        path = state.kernel.path
        kernel = KernelFacts(
            name=path,
            weights=state.kernel.weights,
            bits=state.bits,
            pinned=state.kernel.pinned,
            why_float=reasons.get(path, ""),
            widths=tuple(one.get("bits", {}).get(path) for one in allocations),
            sensitivities=tuple(one.get("sensitivity", {}).get(path) for one in allocations),
        )
        found.append(_in_file(kernel, layers[path]) if path in layers else kernel)
    return tuple(found)


def _in_file(kernel: KernelFacts, layer: LayerReport) -> KernelFacts:
    """A kernel with what the export tells of it."""
    lost = layer.stored_bits == FLOAT_BITS and not kernel.why_float
    return dataclasses.replace(
        kernel,
        stored_bits=layer.stored_bits,
        compute=_COMPUTES.get(layer.compute, layer.compute),
        note="" if lost else layer.note,
        why_float=layer.note if lost else kernel.why_float,
    )


def _uses(
    budget: Budget, states: Sequence[KernelState], report: ExportReport | None
) -> tuple[Use, ...]:
    """What the present widths take of each limit."""
    present = [dataclasses.replace(one.kernel, candidates=(one.bits,)) for one in states]
    micro = report.micro if report else None
    device = {
        "flash": report.tflite_bytes if report and micro else None,
        "ram": micro.arena.bytes if micro else None,
    }
    uses = [
        Use(
            limit.name,
            sum(row[0] for row in limit.coefficients) + limit.beside,
            limit.bound + limit.beside,
        )
        for limit in budget.limits(present)
    ]
    for name, used in device.items():
        allowed = getattr(budget, name)
        if allowed is not None:
            uses.append(Use(f"bytes of {name}", used, float(allowed)))
    return tuple(uses)


def _about(report: ExportReport | None, command: str | None) -> tuple[tuple[str, str], ...]:
    """The file, the versions and the command, as labels and values."""
    told: list[tuple[str, str]] = []
    if report:
        path = pathlib.Path(report.path)
        kind = _KINDS.get(report.optimize_for, "other")
        told += [("file", path.name), ("kind", f"{report.optimize_for} ({kind})")]
        # Not of another file that took its place since.
        if path.is_file() and path.stat().st_size == report.tflite_bytes:
            told.append(("SHA-256", hashlib.sha256(path.read_bytes()).hexdigest()))
    now = datetime.datetime.now(datetime.UTC)
    told += [("report written", f"{now:%Y-%m-%d %H:%M} UTC")]
    told += [("command", command)] if command else []
    versions = [(name, importlib.metadata.version(name)) for name in _PACKAGES]
    told += [("bmpq_tf", __version__), *versions, ("Python", platform.python_version())]
    return (*told, ("machine", f"{platform.system()} {platform.machine()}"))
