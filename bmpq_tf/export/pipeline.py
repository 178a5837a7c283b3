"""`export_tflite`: convert, choose containers, pack, read back, run, compare; then, and only then, write."""

import itertools
import os
import pathlib
import warnings
from collections.abc import Iterator

import keras
import numpy as np

from bmpq_tf.allocation.budget import FLOAT_BITS, Budget
from bmpq_tf.conversion.quantize import float32_model, frozen_model
from bmpq_tf.export import report
from bmpq_tf.export.converter import origin
from bmpq_tf.export.converter.convert import first_line, to_float_tflite
from bmpq_tf.export.integer import calibration, grids, known_ranges, static
from bmpq_tf.export.kernels import lowering, packing, storage
from bmpq_tf.export.kernels.match import KernelIntegers, channels_first, feature_sizes
from bmpq_tf.export.kernels.search import find_kernels
from bmpq_tf.export.report import ExportReport
from bmpq_tf.export.tflite import cleanup, flatbuffer
from bmpq_tf.export.verification import error_localization, parity
from bmpq_tf.export.verification.rounding_ties import activation_quantizers, name_roundings
from bmpq_tf.files import write_bytes
from bmpq_tf.model.kernels import KernelState, compression, model_kernels, stored_budget, total_bits, within


class ExportError(RuntimeError):
    """The file would not be what the model is, so there is none."""


class FloatKernelsWarning(UserWarning):
    """Kernels that were trained at a width and lie in the file as floats, since the converter changed them in a way that is not known."""


class ConstantColumnsWarning(UserWarning):
    """Columns of an int8 output in which the file answers one single value, where Keras's answers vary."""


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    optimize_for: str = "size",
    verify_with=None,
    calibrate_with=None,
    border: str = "float",
    tolerance: float | None = None,
    budget: "str | float | Budget | None" = None,
    overwrite: bool = False,
) -> ExportReport:
    """Writes a quantized model as a `.tflite` file that holds exactly the integers that were trained; `"integer"` rounds embeddings anew.

    Where the model rounds activations, so does the file; it computes in float32 where the model was trained in 16 bits, and is compared
    with what Keras answers so. The file is written only after it was read back, its integers were found
    equal to the model's, and LiteRT gave the answers that Keras gives, with XNNPACK and with the built-in kernels. The report names the
    kernels that lie in a wider type than their width asks for.

    Args:
        model: a trained model from `quantize_model`.
        path: where to write; parent folders are made.
        optimize_for: `"size"`: weights packed at 2, 4 and 8 bits, dequantized when the file is loaded; computes as Keras does.
            `"latency"`: int8 arithmetic, activations rounded to 8 bits as they come; weights in the narrowest type that is no slower
            than int8. `"integer"`: int8 throughout, with fixed ranges of activations: the trained ones where the model rounds them.
        verify_with: inputs to compare Keras and LiteRT on: arrays, or a data set of batches, not an endless one. By default those of
            `calibrate_with`, or random inputs, whose top-1 is told and not judged.
        calibrate_with: for `"integer"`: inputs like those that the model will meet, in the same forms; a few hundred are enough. They set
            the ranges that no activation quantizer sets, and may be left out where there are none; outputs are rounded only by a
            `QuantIdentity` at the end.
        border: for `"integer"`: whether the file's inputs and outputs are `"float"` or `"int8"`.
        tolerance: for `"latency"` and `"integer"`: the root mean square of the differences, relative to an output's own, that is close enough,
            in place of the default and of top-1 agreement on `verify_with`; 0.1 and 0.2 by default, and for an integer file of a model whose
            narrowest activation quantizer has 8, 4 or 2 bits 0.05, 0.15 and 0.4. A trained ResNet-20 stays below 0.03.
        budget: what the model's widths must meet; by default the budget of the model's last allocation, where there was one.
        overwrite: whether an existing file may be replaced.

    Returns:
        An `ExportReport`.

    Raises:
        FileExistsError: the path exists and `overwrite` is false.
        PermissionError: the path cannot be written to.
        ValueError: the model is over the budget, is not quantized, has more than 2 GiB of weights in float32, rounds activations whose range no
            training batch has set yet, or data does not fit it or is missing.
        ConversionError: a layer has no TFLite builtin.
        ExportError: integers or answers differ from the model's, or an operator would stay float in an integer file; nothing was written.

    Warns:
        FloatKernelsWarning: once, if kernels were not found in the converted model and stay float, which an integer file may not.
        ConstantColumnsWarning: once, if an integer file answers a single value in columns of an output where Keras's answers vary.
    """
    path = check_writable(path, overwrite)
    computed = float32_model(model)
    _check_options(optimize_for, calibrate_with, border, tolerance, bool(activation_quantizers(model)))
    on_calibration = verify_with is None and calibrate_with is not None
    if on_calibration:
        # Random inputs lie outside of the ranges that data set.
        once = isinstance(calibrate_with, Iterator)
        calibrate_with, verify_with = itertools.tee(calibrate_with) if once else (calibrate_with, calibrate_with)
    states = model_kernels(model)
    limit = Budget.parse(budget) if budget is not None else stored_budget(model)
    _check_budget(states, limit)
    _check_size(model, states)
    frozen = frozen_model(computed)
    (grids.mark if optimize_for == "integer" else name_roundings)(frozen)
    file = flatbuffer.parse(to_float_tflite(frozen))
    known = known_ranges.known_ranges(file, grids.place(file, frozen)) if optimize_for == "integer" else {}
    kernels = [_integers(state) for state in states if state.quantizer]
    matches = find_kernels(file, kernels)
    packing.separate_buffers(file, matches)
    packing.unfold_columns(file, matches)
    flatbuffer.add_signature(file, [tensor.name for tensor in frozen.inputs], [f"output_{i}" for i in range(len(frozen.outputs))])
    floats = flatbuffer.serialised(file)
    # Constants are views on what was parsed: so the converter's copy goes.
    file = flatbuffer.parse(floats)
    pairs = lowering.plan(file, matches, optimize_for)
    if optimize_for == "integer":
        content, pairs = static.quantize(file, pairs, _calibrated(model, floats, calibrate_with, known) | known, border)
        _check_integer(model, content, border)
    else:
        content = packing.pack(file, pairs)
    stored: dict[str, list[packing.StoredKernel]] = {}
    for match, kernel in pairs:
        for name in (match.kernel.path, *match.also):
            stored.setdefault(name, []).append(kernel)
    lost = [state for state in states if state.quantizer and state.kernel.path not in stored]
    if lost and optimize_for == "integer":
        raise ExportError(
            f"Kernels {_paths(lost)} are no constants of the converted model, so their integers would not be the trained ones. "
            "Name their layers in exclude= of quantize_model, or build them from other Keras layers. Nothing was written."
        )
    content = cleanup.tidied(content, report.metadata(states, stored, limit, optimize_for))
    packed_bytes = _read_back(content, stored)
    try:
        result = parity.compare(computed, content, verify_with, optimize_for, tolerance, judge_top1=not on_calibration)
    except RuntimeError as error:
        raise ExportError(f"LiteRT does not run the file: {first_line(error)} Nothing was written to '{path}'.") from error
    if not result.holds:
        found = error_localization.describe(floats, content, parity.few_inputs(model, verify_with), result.rms_limit)
        raise ExportError(f"{result.problem} {found} Nothing was written to '{path}'.")
    if lost:
        warnings.warn(
            f"Kernels {_paths(lost)} are no constants of the converted model, so they stay float in the file and take "
            f"{sum(state.kernel.weights for state in lost) * FLOAT_BITS // 8:,} bytes in place of {total_bits(lost) / 8:,.0f}. Name their layers in "
            "exclude= of quantize_model, so that the budget counts them as float, or build them from other Keras layers.",
            FloatKernelsWarning,
            stacklevel=2,
        )
    if result.caution:
        warnings.warn(result.caution, ConstantColumnsWarning, stacklevel=2)
    write_bytes(path, content)
    layers = tuple(report.layer_report(state, stored.get(state.kernel.path), optimize_for) for state in states)
    return ExportReport(
        path=str(path),
        tflite_bytes=len(content),
        packed_weight_bytes=packed_bytes,
        ideal_weight_bytes=sum(layer.weights * layer.bits for layer in layers if layer.bits != FLOAT_BITS) / 8,
        allocated_bits=total_bits(states),
        float_bits=FLOAT_BITS * sum(state.kernel.weights for state in states),
        layers=layers,
        parity=result,
        optimize_for=optimize_for,
        zipped_bytes=report.zipped_size(content),
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


def _check_size(model: keras.Model, states: list[KernelState]) -> None:
    weights, largest = sum(state.kernel.weights for state in states), max(states, key=lambda state: state.kernel.weights).kernel
    if weights * FLOAT_BITS // 8 > flatbuffer.LARGEST_BYTES:
        raise ValueError(
            f"Model '{model.name}' has more weights than can be converted, which they are as float32 whatever their widths. Received: {weights:,} "
            f"weights, {weights * FLOAT_BITS // 8:,} bytes; the limit is {flatbuffer.LARGEST_BYTES:,}. Export parts of it as models of their own, or "
            f"make it smaller: the largest kernel is '{largest.path}' with {largest.weights:,}."
        )


def _check_options(optimize_for: str, calibrate_with, border: str, tolerance: float | None, rounds: bool) -> None:
    for name, value, known in (("optimize_for", optimize_for, storage.MODES), ("border", border, static.BORDERS)):
        if value not in known:
            raise ValueError(f"Unknown {name}. Received: {name}={value!r}. Known: {', '.join(known)}.")
    if tolerance is not None and (optimize_for == "size" or not tolerance > 0):
        raise ValueError(
            f'tolerance= is a positive number and serves "latency" and "integer"; "size" computes as Keras does. '
            f"Received: tolerance={tolerance!r}, optimize_for={optimize_for!r}."
        )
    if optimize_for == "integer" and calibrate_with is None and not rounds:
        raise ValueError(
            'optimize_for="integer" fixes the ranges of activations, and the model holds none. Received: calibrate_with=None. '
            "Give a few hundred inputs like those that it will meet."
        )
    if optimize_for != "integer" and calibrate_with is not None:
        raise ValueError(f'calibrate_with serves optimize_for="integer" only. Received: optimize_for={optimize_for!r}. Leave it out.')


def _calibrated(model: keras.Model, floats: bytes, calibrate_with, known: dict[str, calibration.Range]) -> dict[str, calibration.Range]:
    """Returns the ranges that data tell; without data all must be known."""
    if calibrate_with is not None:
        return calibration.ranges(floats, parity.input_batches(model, calibrate_with, what="calibrate_with"), model.inputs[0].shape[0])
    if missing := known_ranges.missing(flatbuffer.parse(floats), known):
        listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ValueError(
            f"Activation quantizers of model '{model.name}' do not set the ranges of all that is computed: {listed} need data. "
            "Received: calibrate_with=None. Give a few hundred inputs like those that the model will meet."
        )
    return {}


def _check_integer(model: keras.Model, content: bytes, border: str) -> None:
    file = flatbuffer.parse(content)
    ends = [file.subgraphs[0].tensors[int(index)] for index in [*file.subgraphs[0].inputs, *file.subgraphs[0].outputs]]
    left = [flatbuffer.tensor_name(tensor) for tensor in ends if tensor.type == flatbuffer.FLOAT32]
    if border == "int8" and left:
        raise ExportError(
            f"Inputs or outputs of model '{model.name}' would stay float: {', '.join(left)}. Take border=\"float\". Nothing was written."
        )
    if found := static.unsupported(content):
        # Conversions are only there because of the others.
        found = [one for one in found if one[0] not in ("QUANTIZE", "DEQUANTIZE")] or found
        floats = [f"{builtin} of layer {owner}" if (owner := origin.layer_of(model, name)) else f"{builtin} '{name}'" for builtin, name in found]
        listed = ", ".join(floats[:5]) + (f" and {len(floats) - 5} more" if len(floats) > 5 else "")
        raise ExportError(
            f"Model '{model.name}' cannot be an integer-only file: {listed} would compute with floats, because no integer kernel is known for "
            'them. Replace those layers, or take optimize_for="latency". Nothing was written.'
        )


def _paths(states: list[KernelState]) -> str:
    return ", ".join(f"'{state.kernel.path}'" for state in states)


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
        sizes=feature_sizes(values.shape, quantizer.channel_axes),
    )


def _read_back(content: bytes, stored: dict[str, list[packing.StoredKernel]]) -> int:
    """Checks type, integers, scales and zero points of every packed buffer in the file; returns the buffers' bytes."""
    model = flatbuffer.parse(content)
    tensors = {flatbuffer.tensor_name(tensor): tensor for subgraph in model.subgraphs for tensor in subgraph.tensors}
    buffers = {}
    for path, kernels in stored.items():
        for kernel in kernels:
            tensor = tensors[kernel.name]
            found = flatbuffer.constant(model, tensor)
            same = (
                flatbuffer.PACKED_BITS.get(tensor.type) == kernel.bits
                and np.array_equal(found, kernel.integers)
                and np.array_equal(np.asarray(tensor.quantization.scale, np.float32), kernel.scales)
                and np.array_equal(np.asarray(tensor.quantization.zeroPoint, np.int64), kernel.zero_points)
            )
            if not same:
                raise ExportError(f"The file does not hold the integers of kernel '{path}' (tensor '{kernel.name}'). Nothing was written.")
            buffers[int(tensor.buffer)] = len(model.buffers[tensor.buffer].data)
    return sum(buffers.values())
