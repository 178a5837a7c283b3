"""Kernels at their own widths in a file for TFLM (docs/METHOD.md)."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.micro.forms import Kernel, Packed, kernel_of, tables
from bmpq_tf.export.tflite import editing, flatbuffer
from bmpq_tf.export.tflite.decode import DECODE

_BUILTIN = schema.BuiltinOperator


def kernels(model, factors: Mapping[str, int] | None = None) -> dict[str, Kernel]:
    """Returns each int8 constant that operators read, by its tensor's name; loops' bodies too.

    Args:
        model: the parsed file.
        factors: what integers were multiplied with, by the names of their tensors; others by 1.
    """
    found = {}
    for subgraph in model.subgraphs:
        for index, places in _readers(model, subgraph).items():
            name = flatbuffer.tensor_name(subgraph.tensors[index])
            factor = (factors or {}).get(name, 1)
            found[name] = _kernel(model, subgraph, index, places, factor)
    return found


def _readers(model, subgraph) -> dict[int, list[tuple[int, int]]]:
    """The operators that read each kernel of a subgraph, and the place among their inputs."""
    readers: dict[int, list[tuple[int, int]]] = {}
    for position, operator in enumerate(subgraph.operators):
        for place, index in enumerate(operator.inputs):
            tensor = subgraph.tensors[index] if index >= 0 else None
            if tensor is not None and tensor.type == flatbuffer.INT8:
                readers.setdefault(index, []).append((position, place))
    constants = {index: flatbuffer.constant(model, subgraph.tensors[index]) for index in readers}
    # A number alone is no kernel.
    return {
        index: readers[index]
        for index, integers in constants.items()
        if integers is not None and integers.ndim
    }


def _kernel(model, subgraph, index: int, places, factor: int) -> Kernel:
    """What decides the form of one kernel."""
    tensor = subgraph.tensors[index]
    operators = [subgraph.operators[position] for position, _ in places]
    results = [subgraph.tensors[operator.outputs[0]].type for operator in operators]
    integers: Any = flatbuffer.constant(model, tensor)
    return kernel_of(
        integers // factor,
        _axis(tensor),
        [flatbuffer.builtin_of(model, operator) for operator in operators],
        flatbuffer.scale_count(tensor),
        beside_int8=all(kind == flatbuffer.INT8 for kind in results),
        factor=factor,
    )


def _axis(tensor) -> int:
    return int(tensor.quantization.quantizedDimension or 0)


def pack(
    model,
    forms: Mapping[str, Packed],
    encode: Callable[[np.ndarray, int], bytes] | None = None,
) -> None:
    """Puts kernels of an int8 file, changed in place, into other forms.

    Args:
        model: the parsed file.
        forms: by the names of the kernels' tensors; the others stay int8.
        encode: packs indices of so many bits; by default TFLM's encoder.
    """
    from bmpq_tf._compat import tflite_micro

    for subgraph in model.subgraphs:
        _pack_in(model, subgraph, forms, encode or tflite_micro.pack_indices)


def _pack_in(model, subgraph, forms: Mapping[str, Packed], encode) -> None:
    from bmpq_tf._compat import tflite_micro

    shared: dict[bytes, int] = {}
    decodes: dict[int, list[tuple[int, int, int]]] = {}
    for index, readers in _readers(model, subgraph).items():
        tensor = subgraph.tensors[index]
        form = forms.get(flatbuffer.tensor_name(tensor))
        if form is None or form.form == "int8":
            continue
        integers: Any = flatbuffer.constant(model, tensor)
        if form.form == "int4":
            tensor.type = schema.TensorType.INT4
            tensor.buffer = editing.add_buffer(model, flatbuffer.packed(integers, 4))
            continue
        axis = _axis(tensor) if len(form.starts) > 1 else None
        indices = _indices(integers, form, axis)
        content = encode(indices, form.bits)
        encoded = _constant(model, subgraph, content)
        told = tflite_micro.ancillary_data(form.bits, tables(form), axis)
        if told not in shared:
            shared[told] = _constant(model, subgraph, told)
        for number, (position, place) in enumerate(readers):
            decoded = index if number == 0 else _twin(subgraph, tensor)
            subgraph.operators[position].inputs[place] = decoded
            decodes.setdefault(position, []).append((encoded, shared[told], decoded))
        tensor.buffer = 0
    _insert(model, subgraph, decodes)


def _indices(integers: np.ndarray, form: Packed, axis: int | None) -> np.ndarray:
    """Each weight's place in its table."""
    along = [-1 if number == axis else 1 for number in range(integers.ndim)]
    trained = integers.astype(np.int64) // form.factor
    return (trained - np.reshape(form.starts, along)) // form.step


def _constant(model, subgraph, content: bytes) -> int:
    values = np.frombuffer(content, np.uint8)
    return editing.add_tensor(model, subgraph, "", values.shape, schema.TensorType.UINT8, values)


def _twin(subgraph, tensor) -> int:
    twin = copy.copy(tensor)
    twin.buffer = 0
    subgraph.tensors.append(twin)
    return len(subgraph.tensors) - 1


def _insert(model, subgraph, decodes: dict[int, list[tuple[int, int, int]]]) -> None:
    """Puts one `DECODE` in front of each operator that reads decoded kernels: what it writes lives
    until the next operator only.
    """
    for position in sorted(decodes, reverse=True):
        inputs = [index for one in decodes[position] for index in one[:2]]
        outputs = [decoded for *_, decoded in decodes[position]]
        operator = editing.new_operator(
            model, _BUILTIN.CUSTOM, inputs, outputs, custom=DECODE.encode()
        )
        subgraph.operators.insert(position, operator)
