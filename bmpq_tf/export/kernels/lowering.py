"""Chooses how the file holds each kernel, and rewrites operators where another one reads a narrow
kernel faster.
"""

import dataclasses
import math
from collections.abc import Sequence

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.kernels import packing, storage
from bmpq_tf.export.kernels.match import Match, reads_as_weights
from bmpq_tf.export.kernels.storage import Container
from bmpq_tf.export.tflite import editing, flatbuffer

_BUILTIN = schema.BuiltinOperator


def plan(model, matches: Sequence[Match], mode: str) -> list[tuple[Match, packing.StoredKernel]]:
    """Decides how each kernel is held and works out what is stored.

    Lowers 1x1 convolutions where that pays.

    Args:
        model: the parsed float model; changed in place.
        matches: its kernels.
        mode: `"size"`, `"latency"` or `"integer"`.
    """
    by_buffer: dict[int, list[tuple[Match, Container, list]]] = {}
    for match in matches:
        subgraph = model.subgraphs[match.subgraph]
        readers = [
            subgraph.operators[position]
            for position in flatbuffer.consumers(subgraph, match.tensor)
        ]
        lowered = mode == "latency" and all(
            _is_pointwise(model, subgraph, reader) for reader in readers
        )
        choices = [_choose(model, subgraph, match, reader, mode, lowered) for reader in readers]
        if lowered and min(choice.bits for choice in choices) == 8:
            lowered = False
            choices = [_choose(model, subgraph, match, reader, mode, False) for reader in readers]
        by_buffer.setdefault(subgraph.tensors[match.tensor].buffer, []).append(
            (match, _common(choices), readers if lowered else [])
        )
    pairs = []
    for group in by_buffer.values():
        container = _common([choice for _, choice, _ in group])
        for match, _, pointwise in group:
            subgraph = model.subgraphs[match.subgraph]
            tensor = subgraph.tensors[match.tensor]
            if pointwise and container.bits < 8:
                tensor.shape = [int(tensor.shape[0]), int(tensor.shape[3])]
                for reader in pointwise:
                    _to_fully_connected(model, reader)
            pairs.append(
                (
                    match,
                    packing.stored_kernel(
                        match, flatbuffer.tensor_name(tensor), tuple(tensor.shape), container
                    ),
                )
            )
    return pairs


def _choose(model, subgraph, match: Match, reader, mode: str, lowered: bool) -> Container:
    builtin = flatbuffer.builtin_of(model, reader)
    name = flatbuffer.schema_name(builtin)
    is_weights = reads_as_weights(model, subgraph, reader, match.tensor, match.channel_axis)
    product = builtin == _BUILTIN.BATCH_MATMUL
    if mode == "integer" and (
        not is_weights or (product and len(set(packing.stored_scales(match))) > 1)
    ):
        return Container(
            8,
            "static",
            f"in int8 on one grid, as {name} reads it: rounded once more, not exactly as trained",
        )
    # The kernel for int8 weights beside float inputs answers wrongly for more than one axis of
    # matrices.
    many = product and len(subgraph.tensors[match.tensor].shape) > 3
    if mode == "latency" and (not is_weights or many):
        return Container(
            8,
            "weight_only",
            f"{name} takes no integer weights there, so they are dequantized when loaded",
        )
    rows = (
        storage.largest_rows(_sizes(subgraph.tensors[_activation(model, subgraph, reader)]))
        if mode == "latency"
        else None
    )
    shown = _BUILTIN.FULLY_CONNECTED if lowered else builtin
    return storage.choose(mode, shown, packing.signed_integers(match), match.kernel.bits, rows)


def _sizes(tensor):
    """A tensor's sizes, -1 where they are open; its shape would have a 1 there."""
    return tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature


def _activation(model, subgraph, reader) -> int:
    """The tensor whose rows meet the kernel.

    A fully connected layer's input, before its rows were joined; a convolution's output.
    """
    if flatbuffer.builtin_of(model, reader) != _BUILTIN.FULLY_CONNECTED:
        return reader.outputs[0]
    for operator in subgraph.operators:
        if (
            reader.inputs[0] in operator.outputs
            and flatbuffer.builtin_of(model, operator) == _BUILTIN.RESHAPE
        ):
            # Where batches are open, so are all sizes of the joined rows; the kernel's are not.
            before = _sizes(subgraph.tensors[operator.inputs[0]])
            kernel = subgraph.tensors[reader.inputs[1]].shape
            if len(before) and before[-1] == kernel[-1]:
                return operator.inputs[0]
    return reader.inputs[0]


def _common(choices: Sequence[Container]) -> Container:
    """One type for all that read one buffer.

    The widest, and through a `DEQUANTIZE` if any of them needs one.
    """
    widest = max(choices, key=lambda choice: choice.bits)
    floats = [choice for choice in choices if choice.compute == "weight_only"]
    return dataclasses.replace(floats[0], bits=widest.bits) if floats else widest


def _is_pointwise(model, subgraph, reader) -> bool:
    """Whether this is a 1x1 convolution of stride 1 and one group."""
    if flatbuffer.builtin_of(model, reader) != _BUILTIN.CONV_2D:
        return False
    options, filters = reader.builtinOptions, subgraph.tensors[reader.inputs[1]].shape
    grouped = int(filters[3]) != int(subgraph.tensors[reader.inputs[0]].shape[3])
    return (
        options.strideW == options.strideH == 1
        and math.prod(int(size) for size in filters[1:3]) == 1
        and not grouped
    )


def _to_fully_connected(model, reader) -> None:
    """A 1x1 convolution is a fully connected layer on each pixel.

    The probe has the operator with `keep_num_dims`.
    """
    activation = reader.builtinOptions.fusedActivationFunction
    options = {"keepNumDims": True, "fusedActivationFunction": activation}
    editing.become(
        model, reader, _BUILTIN.FULLY_CONNECTED, reader.inputs, ("FullyConnected", options)
    )
