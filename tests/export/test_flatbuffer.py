"""Constants of a TFLite file, however the parser hands their buffers over."""

from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils as fb

from bmpq_research.benchmarks.export import export
from bmpq_tf.export.tflite import flatbuffer

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "as_parsed",
    [bytes, lambda data: np.frombuffer(data, np.uint8)],
    ids=["large file", "small file"],
)
def test_packed_integers_are_read_from_bytes_and_from_arrays(as_parsed):
    model = SimpleNamespace(buffers=[SimpleNamespace(data=as_parsed(b"\x21\xf8"))])
    tensor = SimpleNamespace(buffer=0, type=fb.TensorType.INT4, shape=[2, 2])
    assert flatbuffer.constant(model, tensor).tolist() == [[1, 2], [-8, -1]]


@pytest.mark.slow
def test_a_model_of_ten_million_weights_is_exported():
    ((row,),) = [result.rows for result in export((10,))]
    assert row["weights"] == pytest.approx(10e6, rel=0.01)
    assert 0 < row["times the float weights"] < 30
