"""The names of LiteRT that its documentation does not list."""

import numpy as np
import pytest

from bmpq_tf._compat import litert

pytestmark = pytest.mark.quick

SCHEMA = (
    "ModelT",
    "SubGraphT",
    "TensorT",
    "BufferT",
    "OperatorT",
    "OperatorCodeT",
    "QuantizationParametersT",
    "MetadataT",
    "SignatureDefT",
    "TensorMapT",
)
OPTIONS = (
    "Conv2D",
    "DepthwiseConv2D",
    "FullyConnected",
    "TransposeConv",
    "BatchMatMul",
    "Mul",
    "Quantize",
    "Dequantize",
    "FakeQuant",
)


@pytest.mark.parametrize("name", SCHEMA)
def test_the_schema_has(name):
    assert callable(getattr(litert.schema, name))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_schema_has_the_options_of(name):
    assert callable(getattr(litert.schema, f"{name}OptionsT"))
    assert isinstance(getattr(litert.schema.BuiltinOptions, f"{name}Options"), int)


@pytest.mark.parametrize(
    "name",
    ["FLOAT32", "FLOAT16", "INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL", "INT4", "INT2"],
)
def test_the_schema_has_the_type(name):
    assert isinstance(getattr(litert.schema.TensorType, name), int)


def test_a_model_is_read_and_written():
    model = litert.schema.ModelT()
    subgraph = litert.schema.SubGraphT()
    tensor = litert.schema.TensorT()
    tensor.shape, tensor.type, tensor.buffer = [3], litert.schema.TensorType.UINT8, 1
    subgraph.tensors, subgraph.operators, subgraph.inputs, subgraph.outputs = [tensor], [], [0], [0]
    model.signatureDefs, model.metadata = [], []
    model.version, model.subgraphs, model.operatorCodes = 3, [subgraph], []
    model.buffers = [litert.schema.BufferT(), litert.schema.BufferT()]
    model.buffers[1].data = np.arange(3, dtype=np.uint8)
    content = bytes(litert.flatbuffer_utils.convert_object_to_bytearray(model))
    read = litert.flatbuffer_utils.read_model_from_bytearray(content)
    assert read.version == 3
    assert list(read.buffers[1].data) == [0, 1, 2]
    code = litert.schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = litert.schema.BuiltinOperator.CONV_2D
    assert (
        litert.flatbuffer_utils.get_builtin_code_from_operator_code(code)
        == litert.schema.BuiltinOperator.CONV_2D
    )


@pytest.mark.parametrize("name", ["AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"])
def test_the_interpreter_has_the_resolver(name):
    assert hasattr(litert.OpResolverType, name)
