"""Subclasses of Keras's layers: those that change nothing are quantized, all others are told of."""

import json
import pathlib
import warnings

import h5py
import keras
import numpy as np
import pytest

from bmpq_tf import (
    SkippedLayersWarning,
    dequantize_model,
    kernel_table,
    layers,
    load_keras2_model,
    quantize_model,
)
from bmpq_tf.layers.inheritance import keras_class, overridden
from bmpq_tf.layers.registry import registered

L = keras.layers


class Depthwise(L.DepthwiseConv2D):
    """Drops what configs of Keras 2 have."""

    def __init__(self, *args, groups=1, **kwargs):
        super().__init__(*args, **kwargs)


class Named(L.Dense):
    """Another constructor, another config, and a method that Keras does not know."""

    def __init__(self, width, tag="", **kwargs):
        super().__init__(width, **kwargs)
        self.tag = tag

    def get_config(self):
        return {"width": self.units, "tag": self.tag, "name": self.name}

    def told(self):
        return self.tag


class Heads(L.MultiHeadAttention):
    def __init__(self, **kwargs):
        super().__init__(2, 3, **kwargs)


class Gated(L.LSTM):
    pass


class Clipped(L.ReLU):
    def __init__(self, **kwargs):
        super().__init__(**{"max_value": 6, **kwargs})


def float_model(layer, shape):
    inputs = keras.Input(shape)
    x = layer(inputs, inputs) if isinstance(layer, Heads) else layer(inputs)
    return keras.Model(inputs, L.Dense(2, name="head")(L.Flatten()(x)))


@pytest.mark.parametrize(
    ("make", "shape", "twin"),
    [
        (lambda: Depthwise(3, groups=1), (6, 6, 2), layers.QuantDepthwiseConv2D),
        (lambda: Named(4, "x", activation=lambda x: 2 * x), (5,), layers.QuantDense),
        (Heads, (4, 5), layers.QuantMultiHeadAttention),
        (lambda: Gated(3), (4, 5), layers.QuantLSTM),
        (Clipped, (5,), layers.QuantReLU),
    ],
)
# Keras warns of a lambda in a config.
@pytest.mark.filterwarnings("ignore:The object being serialized includes a .lambda")
def test_a_subclass_that_changes_nothing_is_its_parent(make, shape, twin):
    model = float_model(make(), shape)
    bits = 8 if twin is layers.QuantReLU else None
    quantized = quantize_model(model, activation_bits=bits)
    assert type(quantized.layers[1]) is twin
    assert quantized.layers[1].name == model.layers[1].name
    assert all(row.bits == 8 for row in kernel_table(quantized))
    plain = dequantize_model(quantized, on_grid=False)
    x = np.random.default_rng(0).standard_normal((3, *shape)).astype("float32")
    np.testing.assert_allclose(plain(x), model(x), atol=1e-6)


def test_one_that_stays_float_keeps_its_class():
    quantized = quantize_model(float_model(Named(4, "kept"), (5,)), exclude=Named)
    assert quantized.layers[1].told() == "kept"


class Doubled(L.Dense):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs)


class Mixin:
    def build(self, input_shape):
        super().build(input_shape)


class Mixed(Mixin, L.Dense):
    pass


class MoreWeights(L.Dense):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.scale = self.add_weight(shape=(units,), name="scale")

    def get_config(self):
        return {"units": self.units, "name": self.name}


class MoreLayers(L.LSTM):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.extra = L.Dense(2)
        self.extra.build((None, units))

    def get_config(self):
        return {"units": self.units, "name": self.name}


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: Doubled(4), (5,), "derives from Dense and has its own call, so it may"),
        (lambda: Mixed(4), (5,), "derives from Dense and has its own build"),
        (lambda: MoreWeights(4), (5,), "derives from Dense and adds weights"),
        (lambda: MoreLayers(3), (4, 5), r"inside '.*' \(MoreLayers\), whose class adds layers to"),
    ],
)
def test_one_that_matters_stays_float_and_is_told_why(make, shape, message):
    model = float_model(make(), shape)
    with pytest.warns(SkippedLayersWarning, match=message):
        quantized = quantize_model(model)
    assert type(quantized.layers[1]) is type(model.layers[1])
    x = np.random.default_rng(0).standard_normal((3, *shape)).astype("float32")
    plain = dequantize_model(quantized, on_grid=False)
    np.testing.assert_allclose(plain(x), model(x), atol=1e-6)


def test_a_layer_that_cannot_be_copied_is_named():
    class NoConfig(L.Layer):
        def __init__(self, function):
            super().__init__(name="odd")
            self.function = function

        def call(self, inputs):
            return self.function(inputs)

    with pytest.raises(TypeError, match=r"Layer 'odd' \(NoConfig\) cannot be copied.*get_config"):
        quantize_model(float_model(NoConfig(keras.ops.tanh), (5,)))


def test_a_method_set_on_a_layer_itself_is_not_lost():
    layer = L.Dense(5, name="odd")
    layer.call = lambda inputs: inputs
    with pytest.raises(TypeError, match=r"'odd' .* has its own call, set on the object"):
        quantize_model(float_model(layer, (5,)))


@pytest.mark.quick
def test_keras_s_own_layers_compute_as_themselves():
    for entry in registered():
        layer = object.__new__(entry.float_class)
        assert keras_class(layer) is entry.float_class
        assert not overridden(layer)


def as_keras_2(model, path, changes):
    """Writes an .h5 file with keys in its config that Keras 2 wrote and Keras 3 does not know."""
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            layer["config"].update(changes.get(layer["class_name"], {}))
        file.attrs["model_config"] = json.dumps(config)


def old_model():
    inputs = keras.Input((8, 6))
    x = L.SeparableConv1D(4, 2)(L.DepthwiseConv1D(3)(inputs))
    return keras.Model(inputs, L.Dense(2)(L.LSTM(3)(L.Conv1DTranspose(4, 2)(x))))


GROUPS = {name: {"groups": 1} for name in ("DepthwiseConv1D", "SeparableConv1D", "Conv1DTranspose")}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_files_of_keras_2_are_loaded_as_plain_layers_and_quantized_whole(tmp_path):
    model = old_model()
    changes = {**GROUPS, "LSTM": {"time_major": False, "implementation": 2}}
    as_keras_2(model, tmp_path / "old.h5", changes)
    loaded = load_keras2_model(tmp_path / "old.h5")
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in model.layers]
    x = np.random.default_rng(0).standard_normal((3, 8, 6)).astype("float32")
    np.testing.assert_array_equal(loaded(x), model(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(row.bits == 8 for row in kernel_table(quantize_model(loaded)))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_what_keras_3_cannot_do_is_refused_by_name(tmp_path):
    as_keras_2(old_model(), tmp_path / "old.h5", {**GROUPS, "LSTM": {"time_major": True}})
    with pytest.raises(ValueError, match=r"LSTM of Keras 3 has no time_major, .* time_major=True"):
        load_keras2_model(tmp_path / "old.h5")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_keras2_model(tmp_path / "none.h5")
    (tmp_path / "new.keras").touch()
    (tmp_path / "saved").mkdir()
    for name in ("new.keras", "saved"):
        with pytest.raises(ValueError, match=r"from \.h5 files"):
            load_keras2_model(tmp_path / name)


def test_what_tfmot_trained_is_loaded_as_plain_layers_and_answers_as_it(tmp_path):
    path = pathlib.Path(__file__).parent / "files" / "tfmot.h5"
    loaded = load_keras2_model(path)
    assert {type(layer) for layer in loaded.layers} <= {
        *(L.InputLayer, L.Activation, L.Conv2D, L.BatchNormalization, L.ReLU, L.DepthwiseConv2D),
        *(L.Add, L.Flatten, L.Dense),
    }
    activations = {
        layer.name: layer.activation.__name__
        for layer in loaded.layers[1:]
        if isinstance(layer, L.Dense)
    }
    assert list(activations.values()) == ["tanh", "softmax"]
    with h5py.File(path) as file:
        inputs, answers = file["inputs"][()], file["answers"][()]
    # tfmot rounds weights and activations to 8 bits; these are the float weights behind them.
    told = loaded.predict(inputs, verbose=0)
    np.testing.assert_allclose(told, answers, atol=0.06)
    assert np.mean(told.argmax(-1) == answers.argmax(-1)) > 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(row.bits == 8 for row in kernel_table(quantize_model(loaded)))


@pytest.mark.parametrize("file", ["pretrainedResnet.h5", "vww_96.h5", "ad01.h5"])
def test_reference_models_of_keras_2_are_quantized_whole(file, models_dir):
    model = load_keras2_model(models_dir / file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(row.bits == 8 for row in kernel_table(quantize_model(model)))
