"""What a loop carries from step to step, as integers.

litert-quantizer computes with integers inside of a loop's body, and leaves `WHILE` itself, and so
the ends of its subgraphs, float. Here each tensor that is carried gets one grid: where the loop
starts, in its condition, at both ends of its body, and where it ends.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.integer import grids
from bmpq_tf.export.integer.ranges import Range, integer_grid, joined
from bmpq_tf.export.tflite import editing, flatbuffer

_BUILTIN = schema.BuiltinOperator


@dataclasses.dataclass(frozen=True)
class Loop:
    """A `WHILE` of a file's main subgraph.

    Attributes:
        operator: itself.
        condition, body: the numbers of its subgraphs.
    """

    operator: Any
    condition: int
    body: int


def loops(model) -> list[Loop]:
    """Returns the loops of a parsed file, in the order of computation."""
    return [
        Loop(
            operator,
            int(operator.builtinOptions.condSubgraphIndex),
            int(operator.builtinOptions.bodySubgraphIndex),
        )
        for operator in model.subgraphs[0].operators
        if flatbuffer.builtin_of(model, operator) == _BUILTIN.WHILE
    ]


def with_carried(model, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Returns the ranges with one for all tensors that are the same value at two steps.

    Args:
        model: the parsed float file.
        ranges: by tensor name, those of loops' bodies included.
    """
    found = dict(ranges)
    for loop in loops(model):
        for tensors in _carried(model, loop):
            names = [flatbuffer.tensor_name(tensor) for tensor in tensors]
            known = [found[name] for name in names if name in found]
            known += [
                (float(values.min(initial=0)), float(values.max(initial=0)))
                for tensor in tensors
                if (values := flatbuffer.constant(model, tensor)) is not None
            ]
            if known:
                found |= dict.fromkeys(names, joined(known))
    return found


def generated_io(model, io_dtype: str) -> str:
    """Returns which type of inputs and outputs litert-quantizer is asked for.

    It would take the ends of loops' bodies for the model's.
    """
    return "float32" if loops(model) else io_dtype


def carry(model, ranges: Mapping[str, Range], io_dtype: str, bits: int) -> None:
    """Makes loops carry integers; changes a partly quantized file in place.

    Args:
        model: the parsed file.
        ranges: by tensor name, as `with_carried` gives them.
        io_dtype: of inputs and outputs.
        bits: the width of activations, 8 or 16.
    """
    main = model.subgraphs[0]
    if io_dtype != "float32" and loops(model):
        _round_model(model, ranges, bits)
    for loop in loops(model):
        body, condition = model.subgraphs[loop.body], model.subgraphs[loop.condition]
        named = [flatbuffer.tensor_name(main.tensors[index]) for index in loop.operator.outputs]
        places = {
            place: integer_grid(ranges[name], bits)
            for place, name in enumerate(named)
            if main.tensors[loop.operator.outputs[place]].type == flatbuffer.FLOAT32
        }
        for subgraph in (body, condition):
            round_ends(model, subgraph, places, places if subgraph is body else {}, bits)
        _round_around(model, main, loop.operator, places, bits)


def _round_model(model, ranges: Mapping[str, Range], bits: int) -> None:
    """Makes the float inputs and outputs of a file's main subgraph integers."""
    main = model.subgraphs[0]
    behind = {
        operator.outputs[0]: operator.inputs[0]
        for operator in main.operators
        if flatbuffer.builtin_of(model, operator) == _BUILTIN.DEQUANTIZE
    }
    inputs, outputs = (
        {
            place: integer_grid(ranges[flatbuffer.tensor_name(main.tensors[index])], bits)
            for place, index in enumerate(ends)
            if main.tensors[index].type == flatbuffer.FLOAT32 and index not in behind
        }
        for ends in (main.inputs, main.outputs)
    )
    twins = round_ends(model, main, inputs, outputs, bits) | behind
    main.outputs = [behind.get(index, index) for index in main.outputs]
    for signature in model.signatureDefs or ():
        for entry in [*signature.inputs, *signature.outputs]:
            entry.tensorIndex = twins.get(entry.tensorIndex, entry.tensorIndex)


def round_ends(
    model, subgraph, inputs: Mapping[int, Any], outputs: Mapping[int, Any], bits: int
) -> dict:
    """Makes inputs and outputs of a subgraph integers, by their places, on the given grids.

    Returns:
        What takes the place of each.
    """
    twins: dict[int, int] = {}
    before, behind = [], []
    for place, grid in inputs.items():
        index = subgraph.inputs[place]
        twins[index] = twin = integer_twin(model, subgraph, index, grid, bits)
        before.append(editing.dequantize(model, twin, index))
    subgraph.inputs = [twins.get(index, index) for index in subgraph.inputs]
    ends = list(subgraph.outputs)
    for place, grid in outputs.items():
        index = ends[place]
        if index in twins:
            # Handed on as it is.
            ends[place] = twins[index]
            continue
        ends[place] = integer_twin(model, subgraph, index, grid, bits)
        behind.append(editing.quantize(model, index, ends[place]))
    given = dict(zip(subgraph.outputs, ends, strict=True))
    subgraph.operators = [*before, *subgraph.operators, *behind]
    subgraph.outputs = ends
    return twins | given


def integer_twin(model, subgraph, index: int, grid, bits: int) -> int:
    """Adds an integer tensor of another one's shape."""
    suffix, kind = f"_carried_{len(subgraph.tensors)}", flatbuffer.ACTIVATIONS[bits]
    return editing.add_like(model, subgraph, subgraph.tensors[index], suffix, kind, grid)


def _carried(model, loop: Loop) -> Iterator[list[Any]]:
    """Yields the float tensors that hold one carried value, wherever they are."""
    main = model.subgraphs[0]
    body, condition = model.subgraphs[loop.body], model.subgraphs[loop.condition]
    for place, index in enumerate(loop.operator.outputs):
        tensors = [
            main.tensors[loop.operator.inputs[place]],
            condition.tensors[int(condition.inputs[place])],
            body.tensors[body.inputs[place]],
            body.tensors[body.outputs[place]],
            main.tensors[index],
        ]
        if tensors[-1].type == flatbuffer.FLOAT32:
            yield tensors


def _round_around(model, main, operator, places: Mapping[int, Any], bits: int) -> None:
    position = next(at for at, one in enumerate(main.operators) if one is operator)
    before, behind = [], []
    inputs, outputs = list(operator.inputs), list(operator.outputs)
    for place, grid in places.items():
        values = flatbuffer.constant(model, main.tensors[inputs[place]])
        if values is None:
            twin = integer_twin(model, main, inputs[place], grid, bits)
            before.append(editing.quantize(model, inputs[place], twin))
        else:
            twin = grids.integer_constant(model, main, inputs[place], grid, bits)
        inputs[place] = twin
        twin = integer_twin(model, main, outputs[place], grid, bits)
        behind.append(editing.dequantize(model, twin, outputs[place]))
        outputs[place] = twin
    operator.inputs, operator.outputs = inputs, outputs
    main.operators[position : position + 1] = [*before, operator, *behind]
