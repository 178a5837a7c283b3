"""Each registered layer, at each width of a type, is packed and answers as Keras does."""

import keras
import numpy as np
import pytest
from conftest import compiled, sequence_model
from layer_examples import (
    ENTRIES,
    EXAMPLES,
    call_arguments,
    class_name,
    example_arguments,
    example_inputs,
)

from bmpq_tf import BMPQCallback, export_tflite, quantize_model
from bmpq_tf.export.converter.convert import to_float_tflite
from bmpq_tf.export.errors import ConversionError
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.interpreter import TFLiteModel
from bmpq_tf.model.kernels import allocation_history, model_kernels

LEAVES = [name for name in EXAMPLES if not ENTRIES[class_name(name)].is_composite]
FAST = ("MultiHeadAttention", "LSTM", "TimeDistributed")
COMPOSITES = [name for name in EXAMPLES if name not in LEAVES and None not in EXAMPLES[name][1]]


def example_model(name: str, dtype: str) -> keras.Model:
    inputs = keras.Input(EXAMPLES[name][1], dtype=dtype)
    layer = ENTRIES[class_name(name)].float_class(**example_arguments(name), name="layer")
    return keras.Model(inputs, layer(*call_arguments(name, inputs)))


# Widths and layers meet in the packing alone: a width a layer, and all widths for a dense one.
WIDTHS = [(name, (2, 4, 8)[number % 3]) for number, name in enumerate(LEAVES)]


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        *(
            pytest.param(*pair, marks=pytest.mark.slow if "1D" in pair[0] else ())
            for pair in WIDTHS
        ),
        *(("Dense", bits) for bits in (2, 4, 8) if ("Dense", bits) not in WIDTHS),
    ],
)
def test_the_layers_kernels_are_packed(name, bits, tmp_path):
    data = example_inputs(name, 9)
    model = quantize_model(example_model(name, data.dtype.name), (bits,), pin=None)
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=data)
    assert [layer.stored_bits for layer in report.layers] == [bits] * len(model_kernels(model))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in COMPOSITES],
)
def test_the_kernels_inside_a_layer_are_packed_each_at_its_own_width(name, tmp_path):
    data = example_inputs(name, 9)
    model = quantize_model(example_model(name, data.dtype.name), (2, 4, 8), pin=None)
    states = model_kernels(model)
    widths = [(2, 4, 8)[number % 3] for number in range(len(states))]
    for state, width in zip(states, widths, strict=True):
        state.quantizer.set_width(width, state.variable)
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=data)
    assert [layer.stored_bits for layer in report.layers] == widths


def test_channels_in_the_middle_of_a_constant_have_their_scales_there(tmp_path):
    model = quantize_model(example_model("Conv3DTranspose", "float32"), (4,), pin=None)
    export_tflite(model, tmp_path / "model.tflite")
    file = flatbuffer.parse((tmp_path / "model.tflite").read_bytes())
    (tensor,) = [
        tensor for tensor in file.subgraphs[0].tensors if tensor.type in flatbuffer.PACKED_BITS
    ]
    assert tensor.quantization.quantizedDimension == 3
    (state,) = model_kernels(model)
    np.testing.assert_array_equal(
        flatbuffer.constant(file, tensor), state.quantizer.integers(state.variable.value)
    )


@pytest.mark.slow
def test_a_model_of_such_layers_trains_under_a_budget_and_is_exported(tmp_path):
    model = compiled(quantize_model(sequence_model(), pin="last"))
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((64, 4, 5)).astype("float32"), generator.integers(0, 3, 64)
    model.fit(x, y, epochs=4, verbose=0, callbacks=[BMPQCallback("8x", verbose=0)])
    (*_, last) = allocation_history(model)
    assert set(last["bits"]) == {state.kernel.path for state in model_kernels(model)}
    assert all(sensitivity > 0 for sensitivity in last["sensitivity"].values())
    assert len(set(last["bits"].values())) > 1
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=x)
    assert [layer.stored_bits for layer in report.layers] == [layer.bits for layer in report.layers]
    assert report.compression >= 8


def test_conversion_leaves_recurrent_layers_as_they_were():
    layer = (model := example_model("LSTM", "float32")).get_layer("layer")
    layer.unroll = True
    to_float_tflite(model)
    assert layer.unroll
    assert "inner_loop" not in vars(layer)


@pytest.mark.slow
def test_more_than_ten_inputs_and_outputs_stay_in_order():
    inputs = [keras.Input((size,)) for size in range(1, 13)]
    content = to_float_tflite(
        keras.Model(inputs, [keras.layers.Dense(20 - tensor.shape[1])(tensor) for tensor in inputs])
    )
    answers = TFLiteModel(content)([np.ones((1, size), np.float32) for size in range(1, 13)])
    assert [answer.shape[1] for answer in answers] == list(range(19, 7, -1))


def test_a_loop_over_an_unknown_number_of_steps_is_named(tmp_path):
    inputs = keras.Input((None, 3))
    loop = keras.layers.TimeDistributed(keras.layers.Dense(2), name="loop")
    model = quantize_model(keras.Model(inputs, loop(inputs)), (4,), pin=None)
    with pytest.raises(
        ConversionError,
        match=r"convert for a fixed number of steps only: 'loop' \(TimeDistributed\)",
    ):
        export_tflite(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_a_sum_that_looks_like_a_bias_is_converted(tmp_path):
    """Keras takes it for one along the second axis, which no builtin adds, in a batch of one."""
    steps = keras.Input((6, 4), batch_size=1)
    x, gate = keras.layers.Dense(4)(steps), keras.layers.Dense(1)(steps)
    model = quantize_model(keras.Model(steps, keras.layers.Add()([x, gate])))
    data = np.random.default_rng(0).standard_normal((5, 6, 4)).astype("float32")
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=data)
    assert report.parity.max_abs_diff < 1e-5
