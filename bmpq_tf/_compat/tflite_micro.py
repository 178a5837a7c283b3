"""tflite-micro's interpreter, and the parts of its encoder that its documentation does not list.

An optional package: the extra `micro`. See `tests/compat/test_tflite_micro.py`.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tflite_micro import runtime as _runtime
from tflite_micro.tensorflow.lite.micro.compression import decode as _decode
from tflite_micro.tensorflow.lite.micro.compression import lut as _lut
from tflite_micro.tensorflow.lite.micro.tools import (
    tflite_flatbuffer_align_wrapper as _align_wrapper,
)

Interpreter: Any = _runtime.Interpreter
# Byte 5 of the ancillary data holds the axis of the tables, or this where there is one table.
ONE_TABLE: int = _lut.LutAncillaryData.PER_TENSOR_AXIS


def pack_indices(indices: np.ndarray, bits: int) -> bytes:
    """Returns table indices, so many bits each, as `DECODE` reads them: high bits first."""
    return _lut.pack_indices(indices, bits)


def ancillary_data(bits: int, tables: np.ndarray, axis: int | None) -> bytes:
    """Returns what `DECODE` reads beside the indices: a header, and the values behind each index.

    Args:
        bits: of an index, 1 to 7.
        tables: int8 `(channels, 2^bits)`, or `(1, 2^bits)` for one that serves all of them.
        axis: of the channels, the first or the last; `None` with one table. The stride from one
            channel's table to the next is then 0: the runtime goes on by it at every channel.
    """
    tables = np.ascontiguousarray(tables, np.int8)
    lut = _lut.LutAncillaryData(
        bitwidth=bits,
        axis=ONE_TABLE if axis is None else axis,
        value_table_stride=0 if axis is None else tables.shape[1],
        value_tables=tables.tobytes(),
    )
    header = _decode.DecodeCommonMetadata(
        decode_type=_decode.DecodeType.LUT, user_data=lut.to_user_data()
    )
    return _decode.AncillaryDataTensor(header, lut).to_bytes()


def aligned(content: bytes) -> bytes:
    """Returns a file with its buffers where the schema wants them, at multiples of 16 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "in.tflite"), Path(folder, "out.tflite")
        source.write_bytes(content)
        _align_wrapper.align_tflite_model(str(source), str(result))
        return result.read_bytes()
