"""Integer-only files: litert-quantizer places the activations' grids, our integers and scales take
the weights' places.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf._compat.litert_quantizer import (
    ParamsGenerator,
    RecipeManager,
    modified,
    qtyping,
    recipe,
)
from bmpq_tf.export.integer import (
    biases,
    integer_inputs,
    lookup_tables,
    loop_states,
    unlisted_operators,
)
from bmpq_tf.export.integer.ranges import Range
from bmpq_tf.export.kernels import packing
from bmpq_tf.export.kernels.match import Match, reads_as_weights
from bmpq_tf.export.tflite import flatbuffer

IO_DTYPES = ("float32", "int8", "uint8", "int16")
# Those that go with each width of activations.
IO_DTYPES_AT = {8: ("float32", "int8", "uint8"), 16: ("float32", "int16")}
_BUILTIN = schema.BuiltinOperator


def quantize(
    model,
    kernels: Sequence[tuple[Match, packing.StoredKernel]],
    ranges: Mapping[str, Range],
    io_dtype: str,
    *,
    bits: int = 8,
    is_micro: bool = False,
    alone: frozenset[int] = lookup_tables.ALONE,
) -> tuple[Any, list]:
    """Returns the parsed file, and the kernels as they lie in it.

    Scales of silent channels may have been raised for their bias's sake.

    Args:
        model: the parsed float model, with kernels of container `"static"`.
        kernels: its kernels.
        ranges: by tensor name, as `calibration.ranges` gives them.
        io_dtype: of inputs and outputs, one of `IO_DTYPES_AT` the width.
        bits: the width of activations, 8 or 16.
        is_micro: whether TFLM will run it.
        alone: operators whose kernels the runtime has, as `lookup_tables.folded` takes them.
    """
    biases.separate(model)
    with integer_inputs.opened(model) as doors:
        model, functions = (
            lookup_tables.folded(model, alone, [door.source for door in doors])
            if bits == 8
            else (model, {})
        )
        generated = loop_states.generated_io(model, io_dtype)
        instructions = _generated(model, ranges, generated, bits)
        placed = []
        for match, stored in kernels:
            stored = _with_room_for_biases(
                model, instructions, match, _on_one_grid(model, instructions, match, stored)
            )
            _place(model, instructions, match, packing.parameters(stored))
            placed.append((match, stored))
        file = modified(model, instructions)
    file = unlisted_operators.carry_integers(file, ranges, io_dtype, bits, functions)
    integer_inputs.connect(file, doors, io_dtype, bits, is_micro)
    if io_dtype == "uint8":
        integer_inputs.as_bytes(file)
    if bits == 16:
        _take_any_scale(file)
    return file, placed


def _take_any_scale(model) -> None:
    """Sums of int16 are computed by shifts where all scales are nearly powers of two, which a scale
    of 1/32767 is, and refused where the shifts go the wrong way.
    """
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            if flatbuffer.builtin_of(model, operator) in (_BUILTIN.ADD, _BUILTIN.SUB):
                operator.builtinOptions.potScaleInt16 = False


def _generated(
    model, ranges: Mapping[str, Range], io_dtype: str, bits: int
) -> dict[str, qtyping.TensorTransformationParams]:
    manager = RecipeManager()
    wanted = recipe.static_wi8_ai16() if bits == 16 else recipe.static_wi8_ai8()
    manager.load_quantization_recipe(wanted)
    if io_dtype == "float32":
        for name in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            manager.add_quantization_config(".*", name, algorithm_key="no_quantize")
    rank = {
        flatbuffer.tensor_name(tensor): len(tensor.shape)
        for subgraph in model.subgraphs
        for tensor in subgraph.tensors
        if tensor.shape is not None
    }
    # litert-quantizer names the type of an entry, which is a plain dict.
    statistics: Any = {
        name: {
            "min": np.full((1,) * rank.get(name, 0), low, np.float32),
            "max": np.full((1,) * rank.get(name, 0), high, np.float32),
        }
        for name, (low, high) in ranges.items()
    }
    # Biases of silent channels overflow on the generated grids, which ours replace.
    with np.errstate(invalid="ignore"):
        return ParamsGenerator(model).generate_quantization_parameters(
            manager,
            statistics,
            enable_progress_bar=False,
        )


def _readers(model, match: Match):
    subgraph = model.subgraphs[match.subgraph]
    for position in flatbuffer.consumers(subgraph, match.tensor):
        yield position, subgraph.operators[position]


def _on_one_grid(
    model, instructions, match: Match, stored: packing.StoredKernel
) -> packing.StoredKernel:
    """What a lookup copies, or an operator reads as it reads activations, lies on one grid.

    Rounded there, as any activation is; not where all channels have one scale already.
    """
    subgraph = model.subgraphs[match.subgraph]
    readers = [operator for _, operator in _readers(model, match)]
    builtins = {flatbuffer.builtin_of(model, operator) for operator in readers}
    if _BUILTIN.BATCH_MATMUL in builtins and len(set(stored.scales)) == 1:
        one = {"scales": stored.scales[:1], "zero_points": stored.zero_points[:1]}
        return dataclasses.replace(stored, **one, axis=0)
    if not builtins & {_BUILTIN.GATHER, _BUILTIN.BATCH_MATMUL} and all(
        reads_as_weights(model, subgraph, operator, match.tensor, match.channel_axis)
        for operator in readers
    ):
        return stored
    grid = next(
        (
            consumer.parameters
            for consumer in instructions[stored.name].consumers
            if consumer.parameters is not None
        ),
        None,
    )
    if grid is None:
        return stored
    scale = np.float32(grid.scale).reshape(-1)[:1]
    zero_point = np.int64(grid.zero_point).reshape(-1)[:1]
    along = [-1 if axis == stored.axis else 1 for axis in range(stored.integers.ndim)]
    values = stored.integers * stored.scales.reshape(along)
    kind = np.dtype(f"int{grid.num_bits}")
    limits = np.iinfo(kind)
    integers = np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(kind)
    container = stored.container
    if grid.num_bits != container.bits:
        container = dataclasses.replace(
            container, bits=grid.num_bits, note=container.note.replace("int8", kind.name)
        )
    return dataclasses.replace(
        stored,
        integers=integers,
        scales=scale,
        zero_points=zero_point,
        container=container,
        factor=1,
    )


def _with_room_for_biases(
    model, instructions, match: Match, stored: packing.StoredKernel
) -> packing.StoredKernel:
    """A bias is stored in steps of input times weight scale.

    A channel that folding nearly silenced would overflow it, or come out as nothing beside
    activations of 16 bits.
    """
    scales = stored.scales
    for position, operator in _readers(model, match):
        content = _bias(model, match, operator)
        if content is not None:
            read = _input_parameters(model, instructions, match, operator, position)
            step = read.scale.reshape(-1)[0]
            smallest = np.abs(content) / (biases.largest(read) * step)
            if read.num_bits == 16:
                output = model.subgraphs[match.subgraph].tensors[operator.outputs[0]]
                written = instructions[flatbuffer.tensor_name(output)].producer.parameters
                of_output = written.scale.reshape(-1)[0]
                smallest = np.maximum(smallest, biases.SMALLEST_MULTIPLIER * of_output / step)
            scales = np.maximum(scales, smallest).astype(np.float32)
    return dataclasses.replace(stored, scales=scales)


def _place(model, instructions, match: Match, weights: qtyping.UniformQuantParams) -> None:
    """Puts known integers in the place of those that were generated, and biases on their grid."""
    subgraph = model.subgraphs[match.subgraph]
    _replace(instructions[flatbuffer.tensor_name(subgraph.tensors[match.tensor])], weights)
    for position, operator in _readers(model, match):
        content = _bias(model, match, operator)
        if content is not None:
            name = flatbuffer.tensor_name(
                subgraph.tensors[
                    operator.inputs[biases.OPERAND[flatbuffer.builtin_of(model, operator)]]
                ]
            )
            activations = _input_parameters(model, instructions, match, operator, position)
            _replace(instructions[name], biases.parameters(content, activations, weights))


def _replace(
    instruction: qtyping.TensorTransformationParams, parameters: qtyping.UniformQuantParams
) -> None:
    instruction.consumers = [
        dataclasses.replace(consumer, parameters=parameters)
        if consumer.parameters is not None
        else consumer
        for consumer in instruction.consumers or ()
    ]


def _bias(model, match: Match, operator) -> np.ndarray | None:
    place = biases.OPERAND.get(flatbuffer.builtin_of(model, operator))
    if place is None or place >= len(operator.inputs) or operator.inputs[place] < 0:
        return None
    return flatbuffer.constant(
        model, model.subgraphs[match.subgraph].tensors[operator.inputs[place]]
    )


def _input_parameters(
    model, instructions, match: Match, operator, position: int
) -> qtyping.UniformQuantParams:
    """The grid of the activations that an operator reads."""
    subgraph = model.subgraphs[match.subgraph]
    data = 2 if flatbuffer.builtin_of(model, operator) == _BUILTIN.TRANSPOSE_CONV else 0
    instruction = instructions[flatbuffer.tensor_name(subgraph.tensors[operator.inputs[data]])]
    return next(
        consumer.parameters
        for consumer in instruction.consumers
        if consumer.subgraph_op_id == position
    )
