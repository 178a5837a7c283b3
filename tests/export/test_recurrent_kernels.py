"""Kernels that a recurrent cell cuts into gates, and states that a layer keeps, in files."""

import keras
import numpy as np
import pytest
from recurrent_models import data_for, sequences, with_widths

from bmpq_research import tflite_builder
from bmpq_tf import export_tflite, inspect_tflite, quantize_model, run_tflite
from bmpq_tf._compat.litert import schema
from bmpq_tf.export.kernels.match import KernelIntegers
from bmpq_tf.export.kernels.search import find_kernels
from bmpq_tf.export.tflite import flatbuffer

layers = keras.layers


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.GRU(4, reset_after=False),
        pytest.param(lambda: layers.GRU(3, implementation=1), marks=pytest.mark.slow),
        pytest.param(
            lambda: layers.RNN(layers.GRUCell(3, reset_after=False, implementation=1)),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda: layers.Bidirectional(layers.GRU(3, reset_after=False)), marks=pytest.mark.slow
        ),
    ],
)
def test_a_kernel_that_its_cell_cuts_into_gates_is_packed_whole(layer, tmp_path):
    model = with_widths(sequences(4, layer()))
    for kind in ("size", "latency"):
        report = export_tflite(model, tmp_path / f"{kind}.tflite", optimize_for=kind)
        assert "float" not in {one.compute for one in report.layers}
        # Packed weights are as many as the model's: every block is there.
        held = inspect_tflite(tmp_path / f"{kind}.tflite").weights
        assert sum(one.count for one in held) >= sum(one.weights for one in report.layers)


def test_a_gate_of_zeros_is_packed_with_the_others(tmp_path):
    model = sequences(4, layers.GRU(4, reset_after=False, name="gru"))
    kernel = model.get_layer("gru").cell.recurrent_kernel
    values = np.array(kernel)
    values[:, 8:] = 0
    kernel.assign(values)
    report = export_tflite(with_widths(model), tmp_path / "model.tflite")
    assert [one.stored_bits for one in report.layers] == [2, 4, 8]


def test_a_kernel_of_which_a_block_is_missing_is_not_found():
    generator = np.random.default_rng(0)
    integers = generator.integers(-7, 8, (6, 5)).astype(np.int8)
    kernel = KernelIntegers(
        "gru/kernel", "gru", 4, integers, np.ones(6, np.float32), (5,), ((4, 2),)
    )
    for blocks, found in ((integers[:4], integers[4:]), 2), ((integers[:4],), 0):
        file = tflite_builder.Builder()
        fed = file.tensor("input", (1, 5), flatbuffer.FLOAT32)
        results = []
        for number, block in enumerate(blocks):
            weights = file.tensor(
                f"gru/{number}", block.shape, flatbuffer.FLOAT32, block.astype(np.float32)
            )
            results.append(file.tensor(f"output_{number}", (1, len(block)), flatbuffer.FLOAT32))
            file.operator(
                schema.BuiltinOperator.FULLY_CONNECTED,
                [fed, weights, -1],
                results[-1:],
                ("FullyConnected", {}),
            )
        assert len(find_kernels(file.model, [kernel])) == found


@pytest.mark.parametrize("kind", ["size", "latency", "integer", "micro"])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.GRU(4, stateful=True, name="kept"),
        lambda: layers.RNN(layers.LSTMCell(4), stateful=True, name="kept"),
        lambda: layers.Bidirectional(layers.SimpleRNN(4, stateful=True, name="kept")),
    ],
)
def test_states_that_a_layer_keeps_are_refused_by_name(layer, kind, tmp_path):
    model = with_widths(sequences(4, layer(), batch_size=2))
    data = {"calibrate_with": data_for(model, 4)} if kind in ("integer", "micro") else {}
    with pytest.raises(ValueError, match=r"stateful=True for '(forward_)?kept' .*initial_state="):
        export_tflite(model, tmp_path / "model.tflite", optimize_for=kind, **data)
    assert not list(tmp_path.iterdir())


def test_states_made_inputs_and_outputs_answer_as_those_that_were_kept(tmp_path):
    def network(x, states=None, **options):
        lstm = layers.LSTM(8, return_state=True, name="lstm", **options)
        y, *new_states = lstm(x, initial_state=states)
        return layers.Dense(3, name="head")(y), new_states

    x = keras.Input((6, 4), batch_size=2)
    trained = with_widths(keras.Model(x, network(x, stateful=True)[0]))
    x, h, c = (
        keras.Input(shape, name=name) for shape, name in (((1, 4), "x"), ((8,), "h"), ((8,), "c"))
    )
    y, states = network(x, [h, c])
    served = quantize_model(keras.Model([x, h, c], [y, *states]), (2, 3, 4, 8), pin=None)
    served.set_weights(trained.get_weights())
    report = export_tflite(served, tmp_path / "stream.tflite")
    assert [layer.bits for layer in report.layers] == [2, 4, 8]
    data = np.random.default_rng(0).standard_normal((2, 12, 4)).astype("float32")
    kept, answers = np.zeros((2, 2, 8), np.float32), []
    for step in range(12):
        answer, *kept = run_tflite(report.path, [data[:, step : step + 1], *kept])
        answers.append(answer)
    for call in range(2):
        wanted = trained(data[:, 6 * call : 6 * call + 6])
        np.testing.assert_allclose(answers[6 * call + 5], wanted, atol=1e-5)
