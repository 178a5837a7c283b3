"""Does the packed file hold the integers of the int8 file?"""

from collections.abc import Iterator

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.errors import ExportError
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.decode import decoded_constants, is_decode


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
    decoded = decoded_constants(model, subgraph)
    for operator in subgraph.operators:
        if is_decode(model, operator):
            continue
        for index in (int(index) for index in operator.inputs if index >= 0):
            tensor = subgraph.tensors[index]
            values, buffer = None, int(tensor.buffer)
            if index in decoded:
                values, buffer = decoded[index].integers, decoded[index].buffer
            if values is None and tensor.type in (flatbuffer.INT8, schema.TensorType.INT4):
                values = flatbuffer.constant(model, tensor)
            if values is not None:
                name = flatbuffer.schema_name(flatbuffer.builtin_of(model, operator))
                yield name, values, np.asarray(tensor.quantization.scale, np.float32), buffer
