"""The names of tflite-micro that its documentation does not list are there, and do the same."""

import inspect

import numpy as np
import pytest

pytest.importorskip("tflite_micro")

from tflite_micro.tensorflow.lite.micro.compression import decode, decode_insert, lut
from tflite_micro.tensorflow.lite.micro.tools import tflite_flatbuffer_align_wrapper

from bmpq_tf._compat import tflite_micro
from bmpq_tf.export.tflite.decode import DECODE

pytestmark = pytest.mark.quick


def test_the_encoder_has_what_is_used():
    assert decode_insert.DECODE_CUSTOM_OP_NAME == DECODE
    assert int(decode.DecodeType.LUT) == 0
    fields = inspect.signature(lut.LutAncillaryData).parameters
    assert {"bitwidth", "axis", "value_table_stride", "value_tables"} <= set(fields)
    assert lut.LutAncillaryData.PER_TENSOR_AXIS == 15
    assert callable(tflite_flatbuffer_align_wrapper.align_tflite_model)


def test_indices_are_packed_high_bits_first():
    assert tflite_micro.pack_indices(np.array([1, 2, 3, 0]), 2) == bytes([0b01101100])
    assert tflite_micro.pack_indices(np.array([5, 1]), 3) == bytes([0b10100100])


def test_one_table_has_no_stride_and_tables_of_channels_have_theirs():
    one = tflite_micro.ancillary_data(2, np.array([[-2, -1, 0, 1]]), None)
    assert one[:8] == bytes([0, 1, 0, 0, 1, 0xF2, 0, 0])
    assert one[16:] == bytes([0xFE, 0xFF, 0, 1])
    several = tflite_micro.ancillary_data(1, np.array([[0, 1], [-1, 0]]), 0)
    assert several[5:7] == bytes([0x01, 2])
    assert several[16:] == bytes([0, 1, 0xFF, 0])


def test_the_interpreter_tells_of_its_memory_in_the_words_that_are_read(capfd):
    from bmpq_research import tflite_builder
    from bmpq_tf.export.micro.runtime import least_arena
    from bmpq_tf.export.tflite import flatbuffer

    file = tflite_builder.Builder()
    grid = (np.float32([0.1]), np.int64([0]), 0)
    ends = [file.tensor(name, [1, 40], flatbuffer.INT8, grid=grid) for name in ("in", "out")]
    file.operator(flatbuffer.schema.BuiltinOperator.RELU, ends[:1], ends[1:], ("", {}))
    arena = least_arena(file.content(ends[:1], ends[1:]))
    assert arena.bytes % 64 == 0
    assert 0 < arena.persistent < arena.bytes < 4096
    assert "Recording" not in capfd.readouterr().err
