"""Does every constant of the file mean what it means in the float model, and does every activation
lie on a grid that training or calibration gave?

No input is needed for that, and a single integer that is off by one shows, in the first kernel as
in the last, where answers may hide it: the steps of activations swallow what is smaller than they.
"""

from collections.abc import Mapping

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.errors import ExportError
from bmpq_tf.export.integer import biases, grids
from bmpq_tf.export.integer.ranges import Range, integer_grid
from bmpq_tf.export.kernels.match import Match, reads_as_weights
from bmpq_tf.export.tflite import flatbuffer

_BUILTIN = schema.BuiltinOperator
# A kernel's float values are integers times scales, rounded to float32 once or twice.
_KERNEL = 2e-5
# What is rounded anew is off by half a step, and by float32.
_HALF_A_STEP = 0.5 + 1e-3
# A bias of so many steps is of a channel that folding silenced: its scale was raised.
_SILENCED = {schema.TensorType.INT32: 2.0**29, schema.TensorType.INT64: 2.0**45}
# To what a multiplier was raised too, beside biases of 64 bits.
_RAISED = biases.SMALLEST_MULTIPLIER * (1 + 1e-3)
_SCALE = 1e-5


def check_constants(content: bytes, floats, kernels: Mapping[str, Match]) -> None:
    """Compares the constants of a file with those of the float model that it was made of.

    What integers and scales stand for must be a trained kernel's as closely as float32 holds them;
    other constants that an integer file holds as integers, and kernels that share a grid with
    activations, may be off by half a step; what stayed as it was must be equal. Channels that
    folding silenced, whose scale makes room for their bias, are left out.

    Args:
        content: the file's bytes.
        floats: the parsed float model.
        kernels: by the names of the tensors that hold them, which kernels they are.

    Raises:
        ExportError: a constant differs.
    """
    model = flatbuffer.parse(content)
    for subgraph, before in zip(model.subgraphs, floats.subgraphs, strict=True):
        wanted = {flatbuffer.tensor_name(tensor): tensor for tensor in before.tensors}
        for index, tensor in enumerate(subgraph.tensors):
            name = flatbuffer.tensor_name(tensor)
            found = _constant(model, tensor, name)
            expected = flatbuffer.constant(floats, wanted[name]) if name in wanted else None
            if found is None or expected is None or found.size != expected.size:
                continue
            if name in kernels:
                expected = kernels[name].values(found.shape)
            exact = name in kernels and not (
                _is_on_one_grid(model, subgraph, index) or _has_lost_scales(tensor, kernels[name])
            )
            wrong = _is_wrong(tensor, found, expected.reshape(found.shape), exact)
            wrong &= ~_is_silenced(model, subgraph, index, found.shape)
            if count := np.count_nonzero(wrong):
                raise ExportError(
                    f"The file's constant '{name}' is not the model's: {count:,} of {wrong.size:,} "
                    "values differ. Nothing was written. Please report this."
                )


def check_grids(content: bytes, floats, ranges: Mapping[str, Range]) -> None:
    """Looks for the grid of each activation of an integer file among those that the ranges
    give. Grids that an operator has by definition, such as a softmax's, have a power of two for a
    scale.

    Raises:
        ExportError: a grid is none of them.
    """
    model = flatbuffer.parse(content)
    trained = [
        grids.grid_of(operator)
        for subgraph in floats.subgraphs
        for operator in subgraph.operators
        if flatbuffer.builtin_of(floats, operator) == _BUILTIN.FAKE_QUANT
    ]
    limits = [*ranges.values(), *(ends for one in trained for ends in (one.entry, one.range))]
    known = {
        kind: [integer_grid(ends, bits) for ends in limits] + _copied_grids(model, kind)
        for bits, kind in flatbuffer.ACTIVATIONS.items()
    }
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            if tensor.type not in known or flatbuffer.constant(model, tensor) is not None:
                continue
            if flatbuffer.scale_count(tensor) != 1:
                continue
            scale, zero_point = float(tensor.quantization.scale[0]), _zero_points(tensor)[0]
            is_known = any(
                abs(float(one[0]) - scale) <= _SCALE * scale and int(shift[0]) == zero_point
                for one, shift in known[tensor.type]
            )
            if not is_known and not _is_defined(scale, zero_point):
                raise ExportError(
                    f"The file's tensor '{flatbuffer.tensor_name(tensor)}' has a scale of "
                    f"{scale:.6g} and the zero point {zero_point}, which no range of the model's "
                    "gives. Nothing was written. Please report this."
                )


def _constant(model, tensor, name: str) -> np.ndarray | None:
    try:
        return flatbuffer.constant(model, tensor)
    except ValueError as error:
        raise ExportError(
            f"The file's constant '{name}' is of another size than its tensor. Nothing was written."
        ) from error


def _copied_grids(model, kind: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The grids of the constants that lookups copy values out of."""
    tables = [
        subgraph.tensors[operator.inputs[0]]
        for subgraph in model.subgraphs
        for operator in subgraph.operators
        if flatbuffer.builtin_of(model, operator) == _BUILTIN.GATHER
    ]
    return [
        (np.atleast_1d(table.quantization.scale), np.atleast_1d(table.quantization.zeroPoint))
        for table in tables
        if table.type == kind
        and flatbuffer.scale_count(table) == 1
        and flatbuffer.constant(model, table) is not None
    ]


def _is_defined(scale: float, zero_point: int) -> bool:
    return np.frexp(scale)[0] == 0.5 and zero_point in (-128, 0, 127)


def _zero_points(tensor) -> np.ndarray:
    return np.asarray(tensor.quantization.zeroPoint, np.int64)


def _along(tensor, values: np.ndarray, rank: int) -> np.ndarray:
    """Scales or zero points in a shape that meets the tensor's."""
    if len(values) == 1:
        return values.reshape([1] * rank)
    axis = int(tensor.quantization.quantizedDimension)
    return values.reshape([-1 if number == axis else 1 for number in range(rank)])


def _is_wrong(tensor, found: np.ndarray, expected: np.ndarray, exact: bool) -> np.ndarray:
    if not flatbuffer.scale_count(tensor):
        return np.asarray((found != expected) & ~((found != found) & (expected != expected)))
    scales = _along(tensor, np.asarray(tensor.quantization.scale, np.float64), found.ndim)
    zero_points = _along(tensor, _zero_points(tensor), found.ndim)
    apart = np.abs(scales * (found.astype(np.int64) - zero_points) - expected)
    if exact:
        # Of channels that folding silenced the smallest scale there is remains.
        return apart > _KERNEL * np.abs(expected) + 1e-35
    wrong = apart > _HALF_A_STEP * scales + np.finfo(np.float32).eps * np.abs(expected)
    # Rounded into the range of the activations that it meets.
    return wrong & ~((tensor.type == flatbuffer.INT8) & np.isin(found, (-128, 127)))


def _is_on_one_grid(model, subgraph, index: int) -> bool:
    """Whether an operator copies a constant, or reads it as it reads activations."""
    tensor = subgraph.tensors[index]
    axis = 0 if tensor.quantization is None else int(tensor.quantization.quantizedDimension)
    return any(
        flatbuffer.builtin_of(model, operator) == _BUILTIN.GATHER
        or not (
            reads_as_weights(model, subgraph, operator, index, axis)
            or flatbuffer.is_dequantized_constant(model, subgraph, operator)
        )
        for operator in (
            subgraph.operators[position] for position in flatbuffer.consumers(subgraph, index)
        )
    )


def _has_lost_scales(tensor, match: Match) -> bool:
    """Whether a kernel with a scale for each channel has one for all of them in the file."""
    return flatbuffer.scale_count(tensor) == 1 and len(np.unique(match.kernel.scales)) > 1


def _is_silenced(model, subgraph, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Which weights are of a channel whose bias fills its accumulator, in the weights' shape."""
    tensor = subgraph.tensors[index]
    none = np.zeros([1] * len(shape), bool)
    if tensor.type not in (flatbuffer.INT8, schema.TensorType.INT4) or len(shape) < 2:
        return none
    for position in flatbuffer.consumers(subgraph, index):
        for other in subgraph.operators[position].inputs:
            bias = subgraph.tensors[other] if other >= 0 else None
            if bias is None or bias.type not in _SILENCED:
                continue
            values = flatbuffer.constant(model, bias)
            if values is not None and flatbuffer.scale_count(bias) == values.size > 0:
                filled = np.abs(values.astype(np.float64)) >= _SILENCED[bias.type]
                if bias.type == flatbuffer.INT64:
                    output = subgraph.tensors[subgraph.operators[position].outputs[0]]
                    steps = _RAISED * np.asarray(output.quantization.scale, np.float64)[0]
                    filled |= np.asarray(bias.quantization.scale, np.float64) <= steps
                if flatbuffer.scale_count(tensor) != filled.size:
                    filled = np.atleast_1d(filled.all())
                return _along(tensor, filled, len(shape))
    return none
