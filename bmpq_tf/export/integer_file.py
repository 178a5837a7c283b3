"""A file that computes with integers alone, its kernels in steps as fine as its biases need."""

from collections.abc import Sequence
from typing import Any

from bmpq_tf.export import report
from bmpq_tf.export.integer import biases, static
from bmpq_tf.export.kernels import packing
from bmpq_tf.export.kernels.match import Match
from bmpq_tf.export.micro import file as micro_file
from bmpq_tf.export.state import ExportState
from bmpq_tf.export.tflite import flatbuffer

_Kernels = Sequence[tuple[Match, packing.StoredKernel]]


def quantized(state: ExportState, kernels: _Kernels) -> tuple[Any, list]:
    """Returns the parsed file, and the kernels as they lie in it.

    What TFLM would read in int4 lies in int8 where a bias needs it and the budget of flash has room
    for that, the smallest kernels first.

    Args:
        state: with a float file and its ranges.
        kernels: of that file, as int8 holds them.
    """
    if state.activation_bits == 16:
        return _quantized(state, kernels)
    in_int4 = micro_file.in_int4(state.file, kernels) if state.is_micro else set()
    usual = _quantized(state, packing.with_finer_steps(kernels, in_int4))
    coarse = in_int4 & biases.coarse(usual[0]).keys()
    if not coarse:
        return usual
    finer = _quantized(state, packing.with_finer_steps(kernels, in_int4, coarse))
    if _is_within_flash(state, *finer):
        return finer
    chosen: set[str] = set()
    smallest_first = sorted((stored for _, stored in kernels), key=lambda one: one.integers.size)
    for name in (stored.name for stored in smallest_first if stored.name in coarse):
        finer = _quantized(state, packing.with_finer_steps(kernels, in_int4, {*chosen, name}))
        if _is_within_flash(state, *finer):
            chosen, usual = {*chosen, name}, finer
    return usual


def _quantized(state: ExportState, kernels: _Kernels) -> tuple[Any, list]:
    return static.quantize(
        state.file,
        kernels,
        state.known_ranges,
        state.io_dtype,
        bits=state.activation_bits,
        is_micro=state.is_micro,
        alone=state.alone,
    )


def _is_within_flash(state: ExportState, file, kernels: _Kernels) -> bool:
    allowed = getattr(state.limit, "flash", None)
    if allowed is None:
        return True
    told = report.short_metadata(state.kernels, state.limit)
    content, _ = micro_file.packed(flatbuffer.serialised(file), kernels, told)
    return len(content) <= allowed
