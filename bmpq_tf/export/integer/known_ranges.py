"""Which tensors of an integer file need no calibration, because a trained activation quantizer says
what they hold.
"""

from collections.abc import Mapping

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.integer.grids import Grid
from bmpq_tf.export.integer.ranges import Range, joined
from bmpq_tf.export.tflite import flatbuffer

_BUILTIN = schema.BuiltinOperator
# Operators that only choose or move values, and whose int8 kernels give out the grid that they
# read.
_MOVES = flatbuffer.codes(
    """
    RESHAPE SQUEEZE EXPAND_DIMS TRANSPOSE SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND SPACE_TO_DEPTH
    DEPTH_TO_SPACE PAD MAX_POOL_2D SLICE STRIDED_SLICE SPLIT UNPACK TILE BROADCAST_TO
    RESIZE_NEAREST_NEIGHBOR MIRROR_PAD
    """
)
# Averages lie in the range of what they average.
_KEEPS = _MOVES | flatbuffer.codes("AVERAGE_POOL_2D RESIZE_BILINEAR")
_JOINS = flatbuffer.codes("CONCATENATION PACK")


def known_ranges(file, rounded: Mapping[int, Grid]) -> dict[str, Range]:
    """Returns the ranges that follow from the grids of the `FAKE_QUANT`s, by tensor name.

    They hold for what a `FAKE_QUANT` gives and for what only moves it; for what a `FAKE_QUANT`
    reads, where nothing else does, so that the operator before it rounds as the quantizer does.

    Args:
        file: the parsed float file.
        rounded: the grids, as `grids.place` gives them.
    """
    subgraph = file.subgraphs[0]
    found = {index: grid.range for index, grid in rounded.items()}
    for operator in subgraph.operators:
        builtin = flatbuffer.builtin_of(file, operator)
        given = [found.get(index) for index in operator.inputs]
        known = [limits for limits in given if limits]
        if builtin in _JOINS and len(known) == len(given):
            found[operator.outputs[0]] = joined(known)
        elif builtin in _KEEPS and _data(file, operator) in found:
            found |= dict.fromkeys(operator.outputs, found[_data(file, operator)])
    _backward(file, rounded, found)
    return {
        flatbuffer.tensor_name(subgraph.tensors[index]): limits for index, limits in found.items()
    }


def missing(file, known: Mapping[str, Range]) -> list[str]:
    """Returns the names of the float tensors that are computed, or given, and whose range is not
    known.
    """
    subgraph = file.subgraphs[0]
    outputs = {index: number for number, index in enumerate(subgraph.outputs)}
    needed = dict.fromkeys(
        list(subgraph.inputs) + [index for op in subgraph.operators for index in op.outputs]
    )
    names = []
    for index in needed:
        name = flatbuffer.tensor_name(subgraph.tensors[index])
        if subgraph.tensors[index].type == flatbuffer.FLOAT32 and name not in known:
            # What the converter calls outputs says nothing.
            names.append(
                f"output {outputs[index]}" if index in outputs else f"'{name.split(';')[0]}'"
            )
    return names


def _backward(file, rounded: Mapping[int, Grid], found: dict[int, Range]) -> None:
    """Gives what a `FAKE_QUANT` alone reads its grid, and what is only moved on the way there."""
    subgraph = file.subgraphs[0]
    producers = {index: operator for operator in subgraph.operators for index in operator.outputs}
    for operator in subgraph.operators:
        if (
            flatbuffer.builtin_of(file, operator) != _BUILTIN.FAKE_QUANT
            or operator.outputs[0] not in rounded
        ):
            continue
        source, entry = operator.inputs[0], rounded[operator.outputs[0]].entry
        while (
            source not in found
            and source not in subgraph.outputs
            and _agree(file, source, operator, rounded, entry)
        ):
            found[source] = entry
            operator = producers.get(source)
            # What gives several results reads what no quantizer of one of them may limit.
            if (
                operator is None
                or flatbuffer.builtin_of(file, operator) not in _MOVES
                or len(operator.outputs) > 1
            ):
                break
            source = _data(file, operator)


def _agree(file, source: int, reader, rounded: Mapping[int, Grid], entry: Range) -> bool:
    """Whether all that read a tensor want it on the same grid."""
    readers = [
        file.subgraphs[0].operators[position]
        for position in flatbuffer.consumers(file.subgraphs[0], source)
    ]
    return all(
        other is reader or getattr(rounded.get(other.outputs[0]), "entry", None) == entry
        for other in readers
    )


def _data(file, operator) -> int:
    """The tensor whose values an operator takes in; `SPLIT` names its axis first."""
    return operator.inputs[1 if flatbuffer.builtin_of(file, operator) == _BUILTIN.SPLIT else 0]
