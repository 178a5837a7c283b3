"""`DECODE`, the custom operator by which TFLM unpacks kernels: tables of levels and indices."""

import dataclasses

import numpy as np

from bmpq_tf.export.tflite import flatbuffer

# The operator's name in files.
DECODE = "TFLM_DECODE"
# Of the ancillary data: bits and axis, the stride from one channel's table to the next, the tables.
_BITS_AND_AXIS, _STRIDE, _TABLES = 5, 6, 16
_ONE_TABLE = 0xF


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A kernel behind a `DECODE`.

    Attributes:
        integers: int8, as the operator that reads them gets them.
        bits: of an index.
        buffer: that holds the indices.
    """

    integers: np.ndarray
    bits: int
    buffer: int


def is_decode(model, operator) -> bool:
    """Whether an operator unpacks kernels."""
    code = model.operatorCodes[operator.opcodeIndex].customCode
    return code is not None and flatbuffer.text(code) == DECODE


def decoded_constants(model, subgraph) -> dict[int, Decoded]:
    """Returns what each tensor holds that a `DECODE` writes, by its index."""
    found = {}
    for operator in subgraph.operators:
        if not is_decode(model, operator):
            continue
        operands = [subgraph.tensors[index] for index in operator.inputs]
        for encoded, ancillary, result in zip(
            operands[::2], operands[1::2], operator.outputs, strict=True
        ):
            told = flatbuffer.constant(model, ancillary)
            indices = flatbuffer.constant(model, encoded)
            if told is None or indices is None:
                raise ValueError("A DECODE reads what is no constant.")
            shape = tuple(map(int, subgraph.tensors[result].shape))
            bits = int(told[_BITS_AND_AXIS]) & 7
            found[result] = Decoded(decode(indices, told, shape), bits, encoded.buffer)
    return found


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
