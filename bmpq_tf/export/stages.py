"""The stages of an export, in the order in which they run.

Each reads and sets fields of one `ExportState`.
"""

import dataclasses
import itertools
from collections.abc import Iterator

from bmpq_tf import progress
from bmpq_tf.allocation.budget import Budget
from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.conversion import part
from bmpq_tf.conversion.freeze import frozen, in_float32
from bmpq_tf.conversion.supported_models import check_quantized
from bmpq_tf.export import checks, file_checks, integer_file, report
from bmpq_tf.export.converter.convert import to_float_model
from bmpq_tf.export.errors import ConstantColumnsWarning, ExportError
from bmpq_tf.export.integer import (
    calibration,
    grids,
    input_ranges,
    known_ranges,
    masks,
    rewrites,
)
from bmpq_tf.export.kernels import lowering, packing
from bmpq_tf.export.kernels.match import kernel_integers
from bmpq_tf.export.kernels.search import find_kernels as find
from bmpq_tf.export.micro import file as micro_file
from bmpq_tf.export.micro.read_back import read_back as micro_read_back
from bmpq_tf.export.micro.verification import verify as verify_in_tflm
from bmpq_tf.export.state import ExportState
from bmpq_tf.export.tflite import cleanup, editing, flatbuffer
from bmpq_tf.export.verification import error_localization
from bmpq_tf.export.verification.comparison import compare
from bmpq_tf.export.verification.constants import check_constants, check_grids
from bmpq_tf.export.verification.inputs import (
    batch_count,
    few_inputs,
    input_batches,
    through,
)
from bmpq_tf.export.verification.read_back import read_back as read
from bmpq_tf.export.verification.rounding_ties import name_roundings
from bmpq_tf.export.verification.runtimes import runtime_on
from bmpq_tf.files import write_bytes
from bmpq_tf.model import graph_view, keras_graph
from bmpq_tf.model.activation_widths import activation_quantizers
from bmpq_tf.model.kernels import model_kernels, stored_budget, total_bits


def check_request(state: ExportState) -> None:
    """Refuses what can be refused before any work."""
    state.path = checks.check_writable(state.options.path, state.options.overwrite)
    written = state.model
    take_part(state)
    options = state.options
    state.computed = state.until_end.enter_context(in_float32(state.model))
    checks.check_states(state.model)
    checks.check_layers(state.model)
    checks.check_options(options, {one.bits for one in activation_quantizers(state.model)})
    if state.is_micro:
        checks.check_micro(state.model)
    if options.verify_with is None and options.calibrate_with is not None:
        # Random inputs lie outside of the ranges that data set.
        one, other = _twice(options.calibrate_with)
        state.options = dataclasses.replace(options, calibrate_with=one, verify_with=other)
        state.judge_top1 = False
    if options.budget is not None:
        state.limit, judged = Budget.parse(options.budget), state.kernels
    else:
        # It was of the whole model, whatever part of it is exported.
        state.limit = stored_budget(written)
        judged = state.kernels if options.inputs is None else model_kernels(written)
    checks.check_whole(state.kernels)
    checks.check_budget(judged, state.limit)
    checks.check_size(state.model, state.kernels)
    checks.check_finite(state.model, state.kernels)


def _twice(data) -> tuple:
    """Data for two readers, also such as can be read once only."""
    return itertools.tee(data) if isinstance(data, Iterator) else (data, data)


def take_part(state: ExportState) -> None:
    """Sees the model as a graph, narrowed to the part and the sizes that are asked for."""
    options, written = state.options, state.model
    if options.inputs is not None or options.input_shapes is not None:
        check_quantized(written)
    if not keras_graph.is_graph(written):
        given = options.verify_with if options.verify_with is not None else options.calibrate_with
        state.model = graph_view.as_graph(written, options.input_shapes, given)
    if options.inputs is not None:
        front, state.model = part.split(state.model, options.inputs)
        passed = {
            name: through(front, getattr(options, name), name)
            for name in ("verify_with", "calibrate_with")
        }
        state.options = dataclasses.replace(options, **passed)
    if options.input_shapes is not None and keras_graph.is_graph(written):
        state.model = part.with_shapes(state.model, options.input_shapes)
    state.kernels = model_kernels(state.model if keras_graph.is_graph(written) else written)


def convert(state: ExportState) -> None:
    """Converts the model while its kernels are constants on their grids, and its activation
    quantizers can be found again.
    """
    integer = state.arithmetic == "integer"
    with frozen(state.computed) as model:
        (grids.mark if integer else name_roundings)(model)
        state.file = to_float_model(model, batch_size=1 if state.is_micro else None)
        placed = grids.place(state.file, model) if integer else {}
    if integer:
        rewrites.rewrite(state.file, state.alone, state.activation_bits)
        state.known_ranges = known_ranges.known_ranges(state.file, placed)
    if state.is_micro:
        file_checks.check_operators(state)
    inputs = [tensor.name for tensor in model.inputs]
    editing.add_signature(state.file, inputs, keras_graph.output_names(model))


def find_kernels(state: ExportState) -> None:
    """Finds out which constant is which kernel, and takes out again what the converter multiplied
    into columns.
    """
    state.matches = find(
        state.file, [kernel_integers(kernel) for kernel in state.kernels if kernel.quantizer]
    )
    packing.separate_buffers(state.file, state.matches)
    packing.unfold_columns(state.file, state.matches)


def calibrate(state: ExportState) -> None:
    """Measures the ranges of activations that no quantizer tells, for an integer file."""
    if state.arithmetic != "integer":
        return
    given, model = state.options.calibrate_with, state.model
    if given is None:
        state.known_ranges = input_ranges.ranges(state.file, {}) | state.known_ranges
        file_checks.check_ranges(state)
        return
    inputs = input_batches(model, given, what="calibrate_with")
    batches = input_ranges.Watched(progress.counted(inputs, batch_count(model, given)))
    measured = calibration.ranges(
        flatbuffer.serialised(state.file),
        batches,
        model.inputs[0].shape[0] or (1 if state.is_micro else None),
    )
    measured |= input_ranges.ranges(state.file, measured)
    pixels = batches.pixel_ranges(state.file) if state.io_dtype == "uint8" else {}
    state.known_ranges = masks.limited(state.file, measured | state.known_ranges | pixels)


def write_integers(state: ExportState) -> None:
    """Chooses how each kernel is held and by which operator it is read, and puts its integers in
    the constant's place.
    """
    state.floats = state.file
    state.stored = lowering.plan(state.file, state.matches, state.arithmetic)
    if state.arithmetic == "integer":
        state.file, state.stored = integer_file.quantized(state, state.stored)
        file_checks.check_integer(state)
    else:
        state.file = packing.pack(state.file, state.stored)
    file_checks.check_lost(state)


def clean_up(state: ExportState) -> None:
    """Drops what no operator needs, adds the metadata and serialises."""
    told = report.metadata(
        state.kernels, state.stored_by_path, state.limit, state.options.optimize_for
    )
    cleanup.clean_up(state.file, {} if state.is_micro else told)
    state.content = flatbuffer.serialised(state.file)
    del state.file


def read_back(state: ExportState) -> None:
    """Checks that the bytes hold the trained integers, and nothing that was not decided."""
    state.packed_bytes = read(state.content, state.stored_by_path)
    kernels = {stored.name: match for match, stored in state.stored}
    check_constants(state.content, state.floats, kernels)
    if state.arithmetic == "integer":
        check_grids(state.content, state.floats, state.known_ranges)


def pack_for_micro(state: ExportState) -> None:
    """Packs kernels at their own widths for a microcontroller, and drops what TFLM does without."""
    if not state.is_micro:
        return
    state.integer_content = state.content
    told = report.short_metadata(state.kernels, state.limit)
    state.content, forms = micro_file.packed(state.integer_content, state.stored, told)
    # What is read as activations of 16 bits stays as it is.
    state.stored = [
        (match, micro_file.as_packed(kernel, match.kernel.bits, forms[kernel.name]))
        if kernel.name in forms
        else (match, kernel)
        for match, kernel in state.stored
    ]
    names = {kernel.name for _, kernel in state.stored}
    state.packed_bytes = micro_read_back(state.content, state.integer_content, names)


def verify(state: ExportState) -> None:
    """Compares LiteRT's answers with Keras's, and names the first tensor that differs where they
    differ.
    """
    options = state.options
    runtime = runtime_on(options.verify_on)
    content = state.integer_content or state.content
    here = there = options.verify_with
    if state.is_micro:
        here, there = _twice(here)
    state.parity = compare(
        state.computed,
        content,
        here,
        state.arithmetic,
        options.tolerance,
        judge_top1=state.judge_top1,
        runtime=runtime,
        activation_bits=16 if state.activation_bits == 16 else None,
    )
    if not state.parity.holds:
        few = few_inputs(state.model, options.verify_with)
        found = error_localization.describe(
            flatbuffer.serialised(state.floats),
            content,
            few,
            state.parity.rms_limit,
            runtime,
        )
        raise ExportError(f"{state.parity.problem} {found} Nothing was written to '{state.path}'.")
    if state.parity.caution:
        state.warnings.append((ConstantColumnsWarning, state.parity.caution))
    if state.is_micro:
        state.micro = verify_in_tflm(
            state.model, state.content, state.integer_content, there, state.parity.rms_limit
        )
        file_checks.check_device_budget(state)


def write_file(state: ExportState) -> None:
    """Writes the file whole, and reports."""
    write_bytes(state.path, state.content)
    stored, mode = state.stored_by_path, state.options.optimize_for
    layers = tuple(
        report.layer_report(kernel, stored.get(kernel.kernel.path), mode)
        for kernel in state.kernels
    )
    state.report = report.ExportReport(
        path=str(state.path),
        tflite_bytes=len(state.content),
        packed_weight_bytes=state.packed_bytes,
        ideal_weight_bytes=sum(
            layer.weights * layer.bits for layer in layers if layer.bits != FLOAT_BITS
        )
        / 8,
        allocated_bits=total_bits(state.kernels),
        float_bits=FLOAT_BITS * sum(kernel.kernel.weights for kernel in state.kernels),
        layers=layers,
        parity=state.parity,
        optimize_for=mode,
        micro=state.micro,
        zipped_bytes=report.zipped_size(state.content),
        verified_on=state.options.verify_on,
    )


STAGES = (
    check_request,
    convert,
    find_kernels,
    calibrate,
    write_integers,
    clean_up,
    read_back,
    pack_for_micro,
    verify,
    write_file,
)
