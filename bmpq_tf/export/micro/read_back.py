"""Does the packed file hold the integers of the int8 file?"""

from collections.abc import Iterator

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.errors import ExportError
from bmpq_tf.export.micro.operators import is_decode
from bmpq_tf.export.tflite import flatbuffer

# Of the ancillary data: bits and axis, the stride from one channel's table to the next, the tables.
_BITS_AND_AXIS, _STRIDE, _TABLES = 5, 6, 16
_ONE_TABLE = 0xF


def read_back(content: bytes, integer_content: bytes) -> int:
    """Compares every constant that an operator reads as int8, operator by operator.

    Args:
        content: the packed file.
        integer_content: the file of plain int8 kernels that it was made of.

    Returns:
        The bytes of the kernels' buffers, tables left out.

    Raises:
        ExportError: a kernel differs.
    """
    model = flatbuffer.parse(content)
    found = list(operands(model))
    wanted = list(operands(flatbuffer.parse(integer_content)))
    for (name, values, scales, _), (other, others, its_scales, _) in zip(
        found, wanted, strict=True
    ):
        # Equal scales of all channels may lie there as one.
        same = name == other and np.array_equal(values, others)
        if not (same and np.all(scales == its_scales)):
            raise ExportError(
                f"The packed file does not hold the integers that its {name} was given. Nothing "
                "was written."
            )
    buffers = {buffer: len(model.buffers[buffer].data) for *_, buffer in found}
    return sum(buffers.values())


def operands(model) -> Iterator[tuple[str, np.ndarray, np.ndarray, int]]:
    """Yields the operator, the integers, the scales and the buffer of each constant or decoded
    int8 operand, in the order of the operators.
    """
    subgraph = model.subgraphs[0]
    decoded: dict[int, tuple[np.ndarray, int]] = {}
    for operator in subgraph.operators:
        if is_decode(model, operator):
            for place, result in enumerate(operator.outputs):
                encoded, ancillary = (
                    int(operator.inputs[2 * place]),
                    int(operator.inputs[2 * place + 1]),
                )
                tensors = subgraph.tensors
                values = decode(
                    flatbuffer.constant(model, tensors[encoded]),
                    flatbuffer.constant(model, tensors[ancillary]),
                    tuple(map(int, tensors[result].shape)),
                )
                decoded[int(result)] = values, int(tensors[encoded].buffer)
            continue
        for index in (int(index) for index in operator.inputs if index >= 0):
            tensor = subgraph.tensors[index]
            values, buffer = decoded.get(index, (None, int(tensor.buffer)))
            if values is None and tensor.type in (flatbuffer.INT8, schema.TensorType.INT4):
                values = flatbuffer.constant(model, tensor)
            if values is not None:
                name = flatbuffer.schema_name(flatbuffer.builtin_of(model, operator))
                yield name, values, np.asarray(tensor.quantization.scale, np.float32), buffer


def decode(encoded, ancillary, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the int8 levels behind packed indices, as the runtime's `DECODE` does.

    Args:
        encoded: uint8, the indices, high bits first.
        ancillary: uint8, the header and the tables.
        shape: of the kernel.
    """
    bits, axis = int(ancillary[_BITS_AND_AXIS]) & 7, int(ancillary[_BITS_AND_AXIS]) >> 4
    stride = int(ancillary[_STRIDE])
    tables = np.frombuffer(ancillary[_TABLES:].tobytes(), np.int8)
    count = int(np.prod(shape))
    fields = np.unpackbits(encoded)[: count * bits].reshape(count, bits)
    indices = (fields @ (1 << np.arange(bits)[::-1])).reshape(shape)
    if axis != _ONE_TABLE:
        along = [-1 if number == axis else 1 for number in range(len(shape))]
        indices = indices + stride * np.arange(shape[axis]).reshape(along)
    return tables[indices]
