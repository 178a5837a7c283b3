"""Recurrent layers in files: loops that hold each kernel once."""

import time

import keras
import numpy as np
import pytest
from recurrent_models import data_for, masked, sequences, with_widths

from bmpq_tf import export_tflite, inspect_tflite, quantize_model
from bmpq_tf.export.converter import loops
from bmpq_tf.export.converter.convert import to_float_tflite
from bmpq_tf.export.integer import calibration, loop_states
from bmpq_tf.export.tflite import flatbuffer

layers = keras.layers


def own_states() -> keras.Model:
    x, h, c = keras.Input((6, 5)), keras.Input((4,)), keras.Input((4,))
    y, *states = layers.LSTM(4, return_state=True, return_sequences=True)(x, initial_state=[h, c])
    return keras.Model([x, h, c], [layers.Dense(3)(y), *states])


def images() -> keras.Model:
    x = inputs = keras.Input((4, 6, 2))
    for options in ({"return_sequences": True, "go_backwards": True}, {}):
        x = layers.ConvLSTM1D(3, 2, padding="same", **options)(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def shared() -> keras.Model:
    layer, inputs = layers.LSTM(5, return_sequences=True), keras.Input((6, 5))
    return keras.Model(inputs, layers.Dense(3)(layers.GRU(4)(layer(layer(inputs)))))


MODELS = {
    "LSTM": lambda: sequences(6, layers.LSTM(4)),
    "SimpleRNN": lambda: sequences(6, layers.SimpleRNN(4, return_sequences=True, activation="elu")),
    "backwards": lambda: sequences(6, layers.GRU(4, return_sequences=True, go_backwards=True)),
    "unknown steps": lambda: sequences(
        None, layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.GRU(3)
    ),
    "a batch of three": lambda: sequences(6, layers.Bidirectional(layers.GRU(4)), batch_size=3),
    "stacked cells": lambda: sequences(
        6,
        layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_sequences=True, name="stacked"),
    ),
    "masked": lambda: masked(
        layers.LSTM(4, return_sequences=True), layers.GRU(3, zero_output_for_mask=True)
    ),
    "masked, backwards": lambda: masked(
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        layers.GRU(3, go_backwards=True, return_sequences=True, zero_output_for_mask=True),
    ),
    "states of the user's": own_states,
    "called twice": shared,
}
FAST = ("LSTM", "states of the user's")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in MODELS]
)
def test_a_loop_answers_as_keras_and_holds_each_kernel_at_its_own_width(name, tmp_path):
    model = with_widths(MODELS[name]())
    data = data_for(model)
    for kind in ("size", "latency"):
        path = tmp_path / f"{kind}.tflite"
        report = export_tflite(model, path, optimize_for=kind, verify_with=data)
        assert "WHILE" in inspect_tflite(path).operators
        if kind == "size":
            narrow = {2: 2, 3: 4, 4: 4, 8: 8}
            assert [one.stored_bits for one in report.layers] == [
                narrow[one.bits] for one in report.layers
            ]
        else:
            assert {one.compute for one in report.layers} <= {"dynamic", "weight_only"}


INTEGER = [name for name in MODELS if "masked" not in name]
FAST_INTEGER = ("unknown steps",)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST_INTEGER else pytest.mark.slow)
        for name in INTEGER
    ],
)
def test_a_loop_of_an_integer_file_carries_integers(name, tmp_path):
    model = with_widths(MODELS[name](), (8,))
    data = data_for(model, 32)
    path = tmp_path / "model.tflite"
    options = {"calibrate_with": data, "io_dtype": "int8"}
    report = export_tflite(model, path, optimize_for="integer", **options)
    assert {one.compute for one in report.layers} == {"static"}
    file = flatbuffer.parse(path.read_bytes())
    assert "WHILE" in inspect_tflite(path).operators
    assert not [
        flatbuffer.tensor_name(tensor)
        for subgraph in file.subgraphs
        for tensor in subgraph.tensors
        if tensor.type == flatbuffer.FLOAT32
    ]
    # What is carried means the same at every end of a loop.
    for loop in loop_states.loops(file):
        body = file.subgraphs[loop.body]
        for place, index in enumerate(loop.operator.outputs):
            tensors = [
                file.subgraphs[0].tensors[int(index)],
                file.subgraphs[0].tensors[int(loop.operator.inputs[place])],
                body.tensors[int(body.inputs[place])],
                body.tensors[int(body.outputs[place])],
            ]
            grids = {
                (tuple(one.quantization.scale), tuple(one.quantization.zeroPoint))
                for one in tensors
                if one.type == flatbuffer.INT8
            }
            assert len(grids) <= 1


@pytest.mark.slow
def test_a_mask_is_carried_too(tmp_path):
    """Untrained embeddings are too small for int8's tanh, so these are larger."""
    model = masked(layers.Bidirectional(layers.GRU(3)), layers.RepeatVector(2), layers.LSTM(3))
    model.layers[1].set_weights([np.random.default_rng(0).standard_normal((10, 4))])
    model = with_widths(model, (8,))
    data = data_for(model, 32)
    options = {"optimize_for": "integer", "calibrate_with": data}
    assert export_tflite(model, tmp_path / "model.tflite", **options).parity.rms < 0.1


def test_ranges_in_a_loop_are_those_of_all_its_steps():
    model = sequences(6, layers.SimpleRNN(1, activation=None))
    cell = model.layers[1].cell
    for kernel, value in ((cell.kernel, 0.0), (cell.recurrent_kernel, 1.0)):
        kernel.assign(np.full(kernel.shape, value, "float32"))
    cell.bias.assign([1.0])
    measured = calibration.ranges(to_float_tflite(model), [data_for(model)])
    (carried,) = {
        limits for name, limits in measured.items() if "while_body_arg" in name and limits[1] == 6
    }
    assert carried == (0.0, 6.0)


def test_an_integer_file_of_a_loop_needs_data(tmp_path):
    inputs = keras.Input((4, 5))
    x = layers.Dense(4, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.LSTM(4)(x)))
    model = quantize_model(model, (8,), activation_bits=8)
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 4, 5), "float32"), np.ones((8, 3)), verbose=0)
    with pytest.raises(ValueError, match="need data"):
        export_tflite(model, tmp_path / "model.tflite", optimize_for="integer")


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.LSTM(4),
        pytest.param(lambda: layers.GRU(4, reset_after=False), marks=pytest.mark.slow),
        pytest.param(
            lambda: layers.Bidirectional(layers.SimpleRNN(3, return_sequences=True)),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_microcontroller_gets_a_loop_with_kernels_at_their_own_widths(layer, tmp_path):
    pytest.importorskip("tflite_micro")
    model = with_widths(sequences(4, layer()), (4,))
    options = {"optimize_for": "micro", "calibrate_with": data_for(model, 32)}
    report = export_tflite(model, tmp_path / "model.tflite", **options)
    assert "WHILE" in report.micro.operators
    assert {one.stored_bits for one in report.layers} == {4}


def test_a_table_is_unpacked_in_a_loop(tmp_path):
    pytest.importorskip("tflite_micro")
    model = with_widths(sequences(4, layers.GRU(40), size=40), (3,))
    options = {"optimize_for": "micro", "calibrate_with": data_for(model, 32)}
    report = export_tflite(model, tmp_path / "model.tflite", **options)
    assert {"WHILE", "TFLM_DECODE"} <= set(report.micro.operators)
    assert [one.stored_bits for one in report.layers][:2] == [3, 3]
    # The head is smaller without a table.
    assert report.packed_weight_bytes < report.ideal_weight_bytes + 100


@pytest.mark.slow
def test_layers_that_stay_float_loop_too(tmp_path):
    with pytest.warns(UserWarning, match="ConvLSTM1D"):
        model = with_widths(images())
    export_tflite(model, tmp_path / "model.tflite", verify_with=data_for(model))
    assert inspect_tflite(tmp_path / "model.tflite").operators["WHILE"] == 2


@keras.saving.register_keras_serializable("tests")
class OwnLoop(layers.SimpleRNN):
    """A loop of its own, which the export does not know."""

    def inner_loop(self, sequences, initial_state, mask, training=False):
        last, outputs, states = super().inner_loop(sequences, initial_state, mask, training)
        return last + 1.0, outputs, states


def test_a_loop_of_the_users_is_called_step_by_step(tmp_path):
    with pytest.warns(UserWarning, match="OwnLoop"):
        model = with_widths(sequences(4, OwnLoop(3, name="own")))
    assert not loops.has_keras_loop(model.get_layer("own"))
    export_tflite(model, tmp_path / "model.tflite", verify_with=data_for(model))
    assert "WHILE" not in inspect_tflite(tmp_path / "model.tflite").operators


@pytest.mark.slow
def test_the_number_of_steps_does_not_change_the_files_size(tmp_path):
    sizes = []
    for steps in (3, 300):
        keras.utils.set_random_seed(0)
        model = with_widths(sequences(steps, layers.LSTM(4, return_sequences=True)))
        sizes.append(export_tflite(model, tmp_path / f"{steps}.tflite").tflite_bytes)
    # Step by step it would be some hundred bytes more for each.
    assert abs(sizes[1] - sizes[0]) < 1000


@pytest.mark.slow
def test_a_hundred_steps_both_ways_are_exported_in_seconds(tmp_path):
    model = with_widths(sequences(100, layers.Bidirectional(layers.LSTM(16))))
    started = time.process_time()
    export_tflite(model, tmp_path / "model.tflite", verify_with=data_for(model))
    assert time.process_time() - started <= 10
