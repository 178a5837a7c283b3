"""What is refused, or warned of, once there is a file to look at."""

from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.export.converter import origin
from bmpq_tf.export.errors import ExportError, FloatKernelsWarning
from bmpq_tf.export.integer import (
    integer_inputs,
    known_ranges,
    lookup_tables,
    unlisted_operators,
    unsupported,
)
from bmpq_tf.export.micro.operators import missing
from bmpq_tf.export.state import ExportState
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.model.kernels import KernelState, total_bits
from bmpq_tf.wording import listed

_FOLLOWING = {
    *("QUANTIZE", "DEQUANTIZE", "FAKE_QUANT"),
    *map(flatbuffer.schema_name, unlisted_operators.CARRIES),
}


def check_ranges(state: ExportState) -> None:
    """Raises ValueError where ranges need data and there are none."""
    # Between the operators of a table nothing is rounded.
    file, _ = lookup_tables.folded(state.file, state.alone)
    if missing := known_ranges.missing(file, state.known_ranges):
        raise ValueError(
            f"Activation quantizers of model '{state.model.name}' do not set the ranges of all "
            f"that is computed: {listed(missing)} need data. "
            "Received: calibrate_with=None. Give a few hundred inputs like those that the model "
            "will meet."
        )


def check_integer(state: ExportState) -> None:
    """Raises ExportError where something of an integer file would stay float."""
    model, file = state.model, state.file
    ends = [
        file.subgraphs[0].tensors[index]
        for index in [*file.subgraphs[0].inputs, *file.subgraphs[0].outputs]
    ]
    left = [flatbuffer.tensor_name(tensor) for tensor in ends if tensor.type == flatbuffer.FLOAT32]
    if state.io_dtype != "float32" and left:
        raise ExportError(
            f"Inputs or outputs of model '{model.name}' would stay float: {', '.join(left)}. Take "
            'io_dtype="float32". Nothing was written.'
        )
    if found := unsupported.find(file):
        wide = state.activation_bits == 16
        # Conversions and what has an integer form are only there because of the others.
        found = [one for one in found if one[0] not in _FOLLOWING] or found
        raise ExportError(
            f"Model '{model.name}' cannot be an integer-only file: "
            f"{_owned(model, found)} would compute "
            f"with floats{' beside 16-bit activations' * wide}: bmpq_tf writes no integers for "
            "them, whether or not LiteRT has a kernel that takes some. Replace those layers, or "
            f'take {"activation_bits=8 or " * wide}optimize_for="latency". Nothing was written.'
        )
    if state.is_micro and (found := missing(file)):
        raise _not_in_tflm(state, found, " for 16-bit activations" * (state.activation_bits == 16))
    if state.is_micro and (cast := integer_inputs.casts_beyond_tflm(file)):
        raise ExportError(
            f"Model '{model.name}' does not run on a microcontroller: TFLM casts no "
            f"{', '.join(cast)}. Cast or rescale such an input to float32 before anything else "
            'reads it, give the model int32, or take optimize_for="integer" for a phone. Nothing '
            "was written."
        )


def check_lost(state: ExportState) -> None:
    """Raises or warns of kernels that were trained at a width and that the converted model does not
    hold.
    """
    lost = state.lost
    if not lost:
        return
    if state.arithmetic == "integer":
        raise ExportError(
            f"Kernels {_paths(lost)} are no constants of the converted model, so their integers "
            "would not be the trained ones. "
            "Name their layers in exclude= of quantize_model, or build them from other Keras "
            "layers. Nothing was written."
        )
    taken = sum(kernel.kernel.weights for kernel in lost) * FLOAT_BITS // 8
    told = (
        f"Kernels {_paths(lost)} are no constants of the converted model, so they stay float in "
        "the file and take "
        f"{taken:,} bytes in place of {total_bits(lost) / 8:,.0f}. Name their layers in exclude= "
        "of quantize_model, "
        "so that the budget counts them as float, or build them from other Keras layers."
    )
    state.warnings.append((FloatKernelsWarning, told))


def check_device_budget(state: ExportState) -> None:
    """Raises ExportError for a file that takes more flash or RAM than the budget has."""
    assert state.micro is not None
    if state.options.budget is None and state.options.inputs is not None:
        # The one that is known is of the whole model.
        return
    for name, taken in (("flash", len(state.content)), ("ram", state.micro.arena.bytes)):
        allowed = getattr(state.limit, name, None)
        if allowed is not None and taken > allowed:
            raise ExportError(
                f"The file takes {taken:,} bytes of {name}, and the budget has {allowed:,.0f}. "
                f"{_beyond_the_plan(state)} or export with a budget that it meets. Nothing was "
                "written."
            )


def _beyond_the_plan(state: ExportState) -> str:
    """What to do where a file is over a budget that was planned for the usual inputs, outputs and
    activations.
    """
    wider = {"io_dtype": ("float32", "uint8"), "activation_bits": (16,)}
    asked = [
        f"{name}={value!r}"
        for name, values in wider.items()
        if (value := getattr(state.options, name)) in values
    ]
    if not asked and state.options.budget is None:
        return "It was planned to be smaller. Please report this,"
    if not asked:
        return "Train it under that budget,"
    return f"Budgets are planned without {' and '.join(asked)}, which takes more: leave it out,"


def check_operators(state: ExportState) -> None:
    """Raises ExportError for operators that TFLM does not have."""
    # Those of roundings are gone by then, and tables are there in place of their stand-ins.
    file, _ = lookup_tables.folded(state.file, state.alone)
    found = [one for one in missing(file) if one[0] not in ("FAKE_QUANT", "CUSTOM")]
    if found:
        raise _not_in_tflm(state, found)


def _not_in_tflm(state: ExportState, found: list[tuple[str, str]], beside: str = "") -> ExportError:
    narrower = "activation_bits=8 or " if beside else ""
    return ExportError(
        f"Model '{state.model.name}' does not run on a microcontroller: TFLM has no "
        f"{_owned(state.model, found)}{beside}. Replace those layers, or take {narrower}"
        'optimize_for="integer" for a phone. Nothing was written.'
    )


def _owned(model, operators: list[tuple[str, str]]) -> str:
    """Operators, each with the layer that it comes from."""
    told = (
        f"{builtin} of layer {owner}"
        if (owner := origin.layer_of(model, name))
        else f"{builtin} '{name}'"
        for builtin, name in operators
    )
    # A layer has many of one kind.
    return listed(list(dict.fromkeys(told)))


def _paths(kernels: list[KernelState]) -> str:
    return listed([f"'{kernel.kernel.path}'" for kernel in kernels])
