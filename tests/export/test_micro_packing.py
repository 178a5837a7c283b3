"""Kernels at their own widths: whatever form is chosen, what is read back is what was put in."""

import numpy as np
import pytest

pytest.importorskip("tflite_micro")

from hypothesis import given
from hypothesis import strategies as st

from bmpq_research import tflite_builder
from bmpq_tf.export.errors import ExportError
from bmpq_tf.export.micro import forms, minimal, packing, read_back
from bmpq_tf.export.micro.operators import resolver_method
from bmpq_tf.export.tflite import flatbuffer

pytestmark = pytest.mark.quick

BUILTIN = flatbuffer.schema.BuiltinOperator
NARROW = 2**14


def file_of(integers, scales, builtin=BUILTIN.CONV_2D, axis=0):
    """An int8 file of one operator that reads these weights."""
    file = tflite_builder.Builder()
    grid = (np.float32([0.1]), np.int64([0]), 0)
    given = file.tensor("in", [1, 4, 4, integers.shape[-1]], flatbuffer.INT8, grid=grid)
    kernel_grid = (np.float32(scales), np.zeros(len(scales), np.int64), axis)
    weights = file.tensor(
        "weights", integers.shape, flatbuffer.INT8, integers.astype(np.int8), grid=kernel_grid
    )
    bias_grid = (np.float32(scales), np.zeros(len(scales), np.int64), 0)
    bias = file.tensor(
        "bias", [len(scales)], flatbuffer.schema.TensorType.INT32, np.int32(scales), grid=bias_grid
    )
    result = file.tensor("out", [1, 4, 4, 4], flatbuffer.INT8, grid=grid)
    file.operator(builtin, [given, weights, bias], [result], ("", {}))
    return file.content([given], [result])


def packed(content):
    model = flatbuffer.parse(content)
    chosen = {name: forms.smallest(kernel) for name, kernel in packing.kernels(model).items()}
    packing.pack(model, chosen)
    return flatbuffer.serialised(model), chosen["weights"]


@given(
    st.integers(1, 8),
    st.tuples(*(st.integers(1, 5) for _ in range(4))),
    st.sampled_from([0, 3]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_what_is_packed_is_read_back(bits, shape, axis, turned, odd, seed):
    random = np.random.default_rng(seed)
    level = 2 ** (bits - 1)
    shape = (*shape[:3], shape[3] * 40)
    integers = random.integers(-level + (bits == 8), level, shape)
    integers = 2 * integers + 1 if odd and bits < 7 else integers
    if turned and bits < 8:
        signs = random.choice([-1, 1], shape[axis])
        integers = integers * signs.reshape([-1 if a == axis else 1 for a in range(4)])
    content = file_of(integers, np.arange(1, shape[axis] + 1), axis=axis)
    result, form = packed(content)
    ((_, values, scales, *_),) = read_back.operands(flatbuffer.parse(result))
    np.testing.assert_array_equal(values, integers)
    np.testing.assert_array_equal(scales, np.arange(1, shape[axis] + 1))
    assert form.bytes <= integers.size
    tensors = flatbuffer.parse(content).subgraphs[0].tensors
    names = {flatbuffer.tensor_name(tensor) for tensor in tensors}
    assert read_back.read_back(result, content, names) > 0


@pytest.mark.parametrize(
    ("levels", "count", "builtin", "scales", "form", "bits"),
    [
        ((-128 + 1, 127), NARROW, BUILTIN.CONV_2D, 4, "int8", 8),
        ((-8, 7), NARROW, BUILTIN.CONV_2D, 4, "int4", 4),
        # A scale for each channel has no int4 there.
        ((-8, 7), NARROW, BUILTIN.FULLY_CONNECTED, 4, "decode", 4),
        ((-8, 7), NARROW, BUILTIN.FULLY_CONNECTED, 1, "int4", 4),
        ((-4, 3), NARROW, BUILTIN.CONV_2D, 4, "decode", 3),
        ((-2, 1), NARROW, BUILTIN.TRANSPOSE_CONV, 4, "decode", 2),
        ((-1, 0), NARROW, BUILTIN.DEPTHWISE_CONV_2D, 4, "decode", 1),
        # A table costs more than it saves.
        ((-2, 1), 64, BUILTIN.CONV_2D, 4, "int4", 4),
        ((-2, 1), 64, BUILTIN.TRANSPOSE_CONV, 4, "int8", 8),
        # TFLM was not seen to decode what other operators read.
        ((-2, 1), NARROW, BUILTIN.GATHER, 4, "int8", 8),
    ],
)
def test_the_smallest_form_that_the_runtime_has(levels, count, builtin, scales, form, bits):
    lows, highs = (np.full(4, level) for level in levels)
    kernel = forms.Kernel([builtin], count, lows, highs, scales, True)
    chosen = forms.smallest(kernel)
    assert (chosen.form, chosen.bits) == (form, bits)


def test_turned_signs_take_a_level_more_or_a_table_for_each_channel():
    lows, highs = np.array([-2, -1] * 8), np.array([1, 2] * 8)
    wide = forms.Kernel([BUILTIN.CONV_2D], 2**16, lows, highs, 16, True)
    assert forms.smallest(wide).starts == tuple(lows)
    assert forms.smallest(wide).bits == 2
    few = forms.Kernel([BUILTIN.TRANSPOSE_CONV], 2**16, lows, highs, 16, False)
    assert forms.smallest(few).bits == 3


@pytest.mark.parametrize("factor", [1, 8])
def test_only_what_was_planned_to_be_unpacked_is(factor):
    # At 2 bits int4 takes less than a table, with the two levels that are left a table would.
    trained = np.resize([-1, 0], (4, 1, 1, 175))
    kernel = forms.kernel_of(trained, 0, [BUILTIN.CONV_2D], 4, factor=factor)
    assert forms.smallest(kernel).form == "decode"
    assert not forms.decodes_at(kernel, 2)


@pytest.mark.parametrize("turned", [False, True])
def test_symmetric_levels_lie_in_2_bits_whatever_the_signs(turned):
    integers = np.resize([-3, -1, 1, 3], (4, 1, 1, 4096))
    integers[::2] *= 1 - 2 * turned
    content = file_of(integers, [1, 2, 3, 4])
    result, form = packed(content)
    assert (form.form, form.bits, form.starts, form.step) == ("decode", 2, (-3,), 2)
    assert form.shares_table
    ((_, values, *_),) = read_back.operands(flatbuffer.parse(result))
    np.testing.assert_array_equal(values, integers)


def test_one_wrong_weight_is_seen():
    integers = np.resize(np.arange(-2, 2), (4, 1, 1, 4096))
    content = file_of(integers, [1, 2, 3, 4])
    changed = integers.copy()
    changed[2, 0, 0, 7] += 1
    other, _ = packed(file_of(changed, [1, 2, 3, 4]))
    with pytest.raises(ExportError, match="does not hold the integers"):
        read_back.read_back(other, content, ())
    with pytest.raises(ExportError, match="does not hold the integers"):
        read_back.read_back(packed(file_of(integers, [1, 2, 3, 5]))[0], content, ())


def test_nothing_is_left_that_the_runtime_does_without():
    integers = np.resize(np.arange(-2, 2), (4, 1, 1, 64))
    model = flatbuffer.parse(file_of(integers, [2, 2, 2, 2]))
    minimal.equal_scales_as_one(model)
    minimal.strip(model)
    tensors = model.subgraphs[0].tensors
    assert [tensor.name for tensor in tensors] == [None] * 4
    assert [flatbuffer.scale_count(tensor) for tensor in tensors] == [1, 1, 0, 1]
    assert len(tensors[1].quantization.zeroPoint) == 1


@pytest.mark.parametrize(
    ("operator", "method"),
    [
        ("CONV_2D", "AddConv2D"),
        ("DEPTHWISE_CONV_2D", "AddDepthwiseConv2D"),
        ("FULLY_CONNECTED", "AddFullyConnected"),
        ("MAX_POOL_2D", "AddMaxPool2D"),
        ("ADD", "AddAdd"),
        ("PADV2", "AddPadV2"),
        ("RELU6", "AddRelu6"),
        ("BATCH_MATMUL", "AddBatchMatMul"),
        ("SPACE_TO_BATCH_ND", "AddSpaceToBatchNd"),
        ("TFLM_DECODE", "AddDecode"),
    ],
)
def test_operators_are_registered_by_the_names_of_tflms_resolver(operator, method):
    assert resolver_method(operator) == method
