"""Choosing layers, and giving them candidates of their own."""

import keras
import pytest
from conftest import candidates, pinned, sequence_model, small_model

from bmpq_tf import quantize_model
from bmpq_tf.model.keras_graph import quantized_layers
from bmpq_tf.model.kernels import model_kernels


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"layers": "hidden"}, {"hidden"}),
        ({"layers": ["hidden", keras.layers.Conv2D]}, {"hidden", "stem"}),
        ({"layers": lambda layer: layer.name.startswith("h")}, {"hidden", "head"}),
        ({"exclude": keras.layers.Dense}, {"stem", "depthwise"}),
        ({"layers": keras.layers.Dense, "exclude": ["head"]}, {"hidden"}),
    ],
)
def test_layers_are_chosen_by_name_class_and_predicate(arguments, expected):
    quantized = quantize_model(small_model(), **arguments)
    assert {layer.name for layer in quantized_layers(quantized)} == expected
    others = {
        state.layer.name: state.bits
        for state in model_kernels(quantized)
        if state.quantizer is None
    }
    assert set(others.values()) <= {32}
    assert set(others) == {"stem", "depthwise", "hidden", "head"} - expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"layers": "attention"}, {"query", "key", "value", "attention_output"}),
        (
            {"layers": ["attention", "wide"], "exclude": "key"},
            {"query", "value", "attention_output", "wide"},
        ),
        ({"layers": keras.layers.LSTM, "exclude": "forward_lstm"}, {"lstm_cell"}),
        ({"layers": keras.layers.TimeDistributed}, {"wide", "narrow"}),
        ({"exclude": ["attention", "steps", "both"]}, {"head"}),
    ],
)
def test_layers_inside_layers_are_chosen_like_others(arguments, expected, tmp_path):
    quantized = quantize_model(sequence_model(), **arguments)
    assert {layer.name for layer in quantized_layers(quantized)} == expected
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert candidates(loaded) == candidates(quantized)


def test_a_nested_model_selects_the_layers_inside():
    inputs = keras.Input((3,))
    inner = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3, name="inside")], name="inner"
    )
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(inner(inputs)))
    for selector in (inner, "inner", keras.Sequential):
        assert {
            layer.name for layer in quantized_layers(quantize_model(model, exclude=selector))
        } == {"head"}
    # Predicates are asked of layers.
    assert {
        layer.name
        for layer in quantized_layers(
            quantize_model(model, exclude=lambda layer: "inner" in layer.name)
        )
    } == {"inside", "head"}
    with pytest.raises(ValueError, match="Layer 'stranger' is not in the model"):
        quantize_model(
            model,
            exclude=keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)], name="stranger"),
        )


def test_overrides_give_layers_candidates_of_their_own():
    overrides = {"attention": (3, 5), "key": 6, keras.layers.LSTM: (2,), "head": (4, 8)}
    found = candidates(quantize_model(sequence_model(), (2, 4), overrides=overrides))
    assert found["attention/query/kernel"] == (3, 5)
    assert found["attention/key/kernel"] == (6,)
    assert found["wide/kernel"] == (2, 4)
    assert found["forward_lstm/lstm_cell/recurrent_kernel"] == (2,)
    assert found["head/kernel"] == (4, 8)
    assert pinned(quantize_model(sequence_model(), overrides=overrides)) == set()
