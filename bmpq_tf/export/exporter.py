"""`export_tflite`: convert, pack, read back, run, compare; then, and only then, write."""

import dataclasses
import os
import pathlib
from typing import Any

import keras
import numpy as np

from bmpq_tf.budget import FLOAT_BITS, Budget
from bmpq_tf.export import graph_file, packing, parity
from bmpq_tf.export.convert import to_float_tflite
from bmpq_tf.export.matching import KernelIntegers, channels_first, find_kernels
from bmpq_tf.export.roundings import name_roundings
from bmpq_tf.files import write_bytes
from bmpq_tf.kernels import KernelState, compression, model_kernels, stored_budget, total_bits, within
from bmpq_tf.quantize import frozen_model


class ExportError(RuntimeError):
    """The file would not be what the model is, so there is none."""


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One kernel in the file.

    Attributes:
        name: its variable path.
        weights: how many.
        bits: the width it was trained at; 32 for float.
        stored_bits: the width of its container in the file.
        pinned: whether its width was fixed.
        sensitivity: as of the last allocation, or `None`.
        note: why it is stored wider than its width, or empty.
    """

    name: str
    weights: int
    bits: int
    stored_bits: int
    pinned: bool
    sensitivity: float | None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written, as found in the file.

    Attributes:
        path: where it is.
        tflite_bytes: its size.
        packed_weight_bytes: bytes of the kernels' buffers, as found in the file.
        ideal_weight_bytes: `sum of weights * bits / 8`.
        allocated_bits, float_bits: parameter bits of the model, and of its float32 twin.
        layers: a `LayerReport` for each kernel.
        parity: how the file's answers compare with Keras's.
    """

    path: str
    tflite_bytes: int
    packed_weight_bytes: int
    ideal_weight_bytes: float
    allocated_bits: int
    float_bits: int
    layers: tuple[LayerReport, ...]
    parity: parity.Parity

    @property
    def compression(self) -> float:
        """How many times fewer parameter bits than float32."""
        return self.float_bits / self.allocated_bits

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain data."""
        return {**dataclasses.asdict(self), "compression": self.compression}


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    verify_with=None,
    budget: "str | float | Budget | None" = None,
    overwrite: bool = False,
) -> ExportReport:
    """Writes a quantized model as a `.tflite` file with its weights packed at 2, 4 and 8 bits.

    The weights are dequantized when the file is loaded; every other constant and operator is float. Where the model rounds
    activations, so does the file, in float operators that LiteRT has built in. Widths of 3 bits are stored
    in 4, and 5 to 7 in 8: the report says so. The file is written only after it was read back, its integers were found equal to
    the model's, and LiteRT gave the answers that Keras gives.

    Args:
        model: a trained model from `quantize_model`.
        path: where to write; parent folders are made.
        verify_with: inputs to compare Keras and LiteRT on: arrays, or a data set of batches. Random inputs by default.
        budget: what the file must meet; by default the budget of the model's last allocation, where there was one.
        overwrite: whether an existing file may be replaced.

    Returns:
        An `ExportReport`.

    Raises:
        FileExistsError: the path exists and `overwrite` is false.
        PermissionError: the path cannot be written to.
        ValueError: the model is over the budget, is not quantized, rounds activations whose range no training batch has set yet,
            or `verify_with` does not fit it.
        ConversionError: a layer has no TFLite builtin.
        ExportError: integers or answers differ from the model's; nothing was written.
    """
    path = check_writable(path, overwrite)
    frozen = frozen_model(model)
    name_roundings(frozen)
    states = model_kernels(model)
    _check_budget(states, Budget.parse(budget) if budget is not None else stored_budget(model))
    kernels = [_integers(state) for state in states if state.quantizer]
    content, stored = _packed(frozen, kernels)
    packed_bytes = _read_back(content, stored)
    result = parity.compare(model, content, verify_with)
    if not result.holds:
        raise ExportError(
            f"LiteRT's answers differ from Keras's by up to {result.unexplained_diff:.3g} on {result.examples} examples, more than the "
            f"{result.tolerance:.3g} that rounding explains; top-1 agreement {result.agreement:.4f}. Nothing was written to '{path}'."
        )
    write_bytes(path, content)
    layers = tuple(_layer_report(state, stored.get(state.kernel.path)) for state in states)
    return ExportReport(
        path=str(path),
        tflite_bytes=len(content),
        packed_weight_bytes=packed_bytes,
        ideal_weight_bytes=sum(layer.weights * layer.bits for layer in layers if layer.bits != FLOAT_BITS) / 8,
        allocated_bits=total_bits(states),
        float_bits=FLOAT_BITS * sum(state.kernel.weights for state in states),
        layers=layers,
        parity=result,
    )


def check_writable(path: str | os.PathLike, overwrite: bool = False) -> pathlib.Path:
    """Returns the path if a file can be written there, and raises before any work is done if not."""
    path = pathlib.Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"The path is a folder. Received: path='{path}'. Name a file in it, such as '{path / 'model.tflite'}'.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"The file exists already. Received: path='{path}'. Give another path, or overwrite=True.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise PermissionError(f"Nothing can be written to '{folder}'. Received: path='{path}'. Give a path in a folder that is yours.")
    return path


def _check_budget(states: list[KernelState], budget: Budget | None) -> None:
    if budget is not None and not within(budget, states):
        raise ValueError(
            f"The model is over its budget, so it is not exported. Received: budget='{budget}'; the model is "
            f"{compression(states):.2f}x smaller than float32 ({total_bits(states):,} parameter bits). Train it until "
            "bmpq_within_budget is 1, or give export_tflite a budget that it meets."
        )


def _integers(state: KernelState) -> KernelIntegers:
    quantizer = state.quantizer
    values = np.asarray(keras.ops.convert_to_numpy(state.variable), np.float32)
    integers = np.asarray(quantizer.integers(values)).astype(np.int8)
    scales = np.broadcast_to(np.asarray(quantizer.scale(values)), values.shape)
    return KernelIntegers(
        path=state.kernel.path,
        layer=state.layer.name,
        bits=quantizer.width,
        integers=channels_first(integers, quantizer.channel_axes),
        scales=channels_first(scales, quantizer.channel_axes)[:, 0].copy(),
    )


def _packed(frozen: keras.Model, kernels: list[KernelIntegers]) -> tuple[bytes, dict[str, list[packing.StoredKernel]]]:
    """Returns the file's content, and what was stored for each kernel by path."""
    model = graph_file.parse(to_float_tflite(frozen))
    matches = find_kernels(model, kernels)
    packing.unfold_columns(model, matches)
    graph_file.add_signature(model, [tensor.name for tensor in frozen.inputs], [f"output_{i}" for i in range(len(frozen.outputs))])
    pairs, stored = [], {}
    for match in matches:
        tensor = model.subgraphs[match.subgraph].tensors[match.tensor]
        kernel = packing.stored_kernel(match, graph_file.tensor_name(tensor), tuple(tensor.shape))
        pairs.append((match, kernel))
        stored.setdefault(match.kernel.path, []).append(kernel)
    return packing.pack(model, pairs), stored


def _read_back(content: bytes, stored: dict[str, list[packing.StoredKernel]]) -> int:
    """Checks type, integers, scales and zero points of every packed buffer in the file; returns the buffers' bytes."""
    model = graph_file.parse(content)
    tensors = {graph_file.tensor_name(tensor): tensor for subgraph in model.subgraphs for tensor in subgraph.tensors}
    buffers = {}
    for path, kernels in stored.items():
        for kernel in kernels:
            tensor = tensors[kernel.name]
            found = graph_file.constant(model, tensor)
            same = (
                graph_file.PACKED_BITS.get(tensor.type) == kernel.bits
                and np.array_equal(found, kernel.integers)
                and np.array_equal(np.asarray(tensor.quantization.scale, np.float32), kernel.scales)
                and np.array_equal(np.asarray(tensor.quantization.zeroPoint, np.int64), kernel.zero_points)
            )
            if not same:
                raise ExportError(f"The file does not hold the integers of kernel '{path}' (tensor '{kernel.name}'). Nothing was written.")
            buffers[int(tensor.buffer)] = len(model.buffers[tensor.buffer].data)
    return sum(buffers.values())


def _layer_report(state: KernelState, stored: list[packing.StoredKernel] | None) -> LayerReport:
    bits = state.bits
    container = max((kernel.bits for kernel in stored), default=FLOAT_BITS) if stored else FLOAT_BITS
    note = ""
    if container != bits:
        note = f"LiteRT has no {bits}-bit type" if stored else "not found as a constant of the converted model, so it stays float"
    history = state.quantizer.history if state.quantizer else ()
    return LayerReport(
        name=state.kernel.path,
        weights=state.kernel.weights,
        bits=bits,
        stored_bits=container,
        pinned=state.kernel.pinned,
        sensitivity=history[-1]["sensitivity"] if history else None,
        note=note,
    )
