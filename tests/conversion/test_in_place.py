"""Models written as classes are quantized in place, saved, loaded, and made float again."""

import warnings

import keras
import numpy as np
import pytest
from conftest import compiled, pinned
from subclassed_models import (
    IMAGES,
    MODELS,
    SEQUENCES,
    VECTORS,
    OfTensorFlow,
    ResidualBlock,
    ResNet,
    TwoInputs,
)

import bmpq_tf
from bmpq_tf import dequantize_model, kernel_table, layers, quantize_model
from bmpq_tf.layers import QuantIdentity, QuantReLU
from bmpq_tf.layers.base import QuantizedLayer
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer
from bmpq_tf.model import keras_graph

L = keras.layers


def built(name):
    make, inputs, _ = MODELS[name]
    model = make()
    model(inputs)
    return model, inputs


@pytest.mark.parametrize("name", MODELS)
def test_every_kernel_is_quantized_where_it_stands(name):
    model, inputs = built(name)
    before, variables = model(inputs), {id(variable) for variable in model.weights}
    quantized = quantize_model(model, (8,), pin=None)
    rows = kernel_table(quantized)
    assert len(rows) == MODELS[name][2]
    assert all(row.bits == 8 for row in rows)
    if quantized is model:
        assert variables <= {id(variable) for variable in model.weights}
    # At 8 bits the answers hardly change.
    np.testing.assert_allclose(quantized(inputs), before, atol=0.1)


# Keras warns of layers without a build method whenever it loads them.
@pytest.mark.filterwarnings("ignore:.build... was called on layer")
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_files_bring_back_widths_and_answers(name, tmp_path):
    model, inputs = built(name)
    model = quantize_model(model, (2, 8), pin=None)
    if name == "resnet":
        compiled(model).fit(inputs, np.zeros(len(inputs), int), verbose=0)
    rows = kernel_table(model)
    bmpq_tf.assign_bits(model, {rows[0].path: 2, rows[-1].path: 2})
    answers = model(inputs)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded(inputs), answers, atol=1e-5)
    assert [row.bits for row in kernel_table(loaded)] == [row.bits for row in kernel_table(model)]
    # The other way: the class anew, quantized, with the weights.
    model.save_weights(tmp_path / "m.weights.h5")
    again = quantize_model(built(name)[0], (2, 8), pin=None)
    again.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_allclose(again(inputs), answers, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.build... was called on layer")
@pytest.mark.parametrize("name", MODELS)
def test_dequantized_they_are_what_they_were_with_kernels_on_their_grids(name, tmp_path):
    model, inputs = built(name)
    classes = [type(part) for part in model._flatten_layers()]
    quantized = quantize_model(model, (2,), pin=None)
    answers, variables = quantized(inputs), len(model.weights)
    plain = dequantize_model(quantized)
    assert [type(part) for part in plain._flatten_layers()] == classes
    assert len(plain.weights) <= variables
    np.testing.assert_allclose(plain(inputs), answers, atol=1e-5)
    plain.save(tmp_path / "plain.keras")
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    np.testing.assert_allclose(loaded(inputs), answers, atol=1e-5)
    assert keras_graph.quantized_layers(quantize_model(plain, (2,), pin=None))


def test_a_shared_layer_stays_one_wherever_it_is_referred_to():
    model, _ = built("twice")
    quantize_model(model, (2,), pin=None)
    assert model.shared is model.again is model.listed[0][1]
    assert len(np.unique(model.shared.kernel)) <= 4


@pytest.mark.filterwarnings("ignore:.build... was called on layer")
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"reader of layers"}))
def test_all_of_one_that_is_not_built_is_quantized_and_then_built(name, tmp_path):
    make, inputs, kernels = MODELS[name]
    model = quantize_model(make(), (4,), pin=None)
    answers = model(inputs)
    assert [row.bits for row in kernel_table(model)] == [4] * kernels
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded(inputs), answers, atol=1e-5)
    plain = dequantize_model(model)
    assert not keras_graph.quantized_layers(plain)
    np.testing.assert_allclose(plain(inputs), answers, atol=1e-5)


def test_one_that_was_not_built_is_allocated_as_any_other():
    model = quantize_model(ResNet(), (2, 8), pin=None)
    model(IMAGES)
    rows = kernel_table(model)
    assert [row.bits for row in rows] == [8] * 7
    assert all(isinstance(layer, QuantizedLayer) for layer in model.blocks[1].convolutions)
    callback = bmpq_tf.BMPQCallback(8, verbose=0)
    compiled(model).fit(IMAGES, np.zeros(16, int), epochs=3, callbacks=[callback], verbose=0)
    assert {row.bits for row in kernel_table(model)} <= {2, 8}


def test_auto_pins_nothing_where_no_end_is_seen_and_says_so():
    with pytest.warns(UserWarning, match=r"pins nothing.*'.*' \(ResNet\) is not built"):
        quantize_model(ResNet())
    model, _ = built("of tensorflow")
    with pytest.warns(UserWarning, match=r"line \d+ of subclassed_models.py, in call of '.*' \(Of"):
        quantize_model(model)


def test_ends_are_found_through_lists_and_blocks():
    model, _ = built("resnet")
    assert pinned(quantize_model(model, pin="ends")) == {"stem", "head"}
    reader, _ = built("reader")
    quantize_model(reader, pin="first")
    assert pinned(reader) == {reader.table.name}


def test_activations_are_rounded_as_in_a_functional_model():
    model, inputs = built("resnet")
    quantize_model(model, activation_bits=4, pin=None)
    relus = [part for part in model._flatten_layers() if isinstance(part, QuantReLU)]
    assert len(relus) == 2
    assert model.stem.output_quantizer.bits == 4
    # It reads the model's inputs, and the head a mean.
    assert (model.stem.input_quantizer.bits, model.heads["class"].input_quantizer.bits) == (8, 4)
    # A ReLU has rounded what it reads.
    assert model.blocks[0].convolutions[1].input_quantizer is None
    compiled(model).fit(inputs, np.zeros(16, int), verbose=0)
    answers = model(inputs)
    plain = dequantize_model(model)
    assert not any(isinstance(part, QuantReLU | QuantIdentity) for part in plain._flatten_layers())
    assert answers.shape == plain(inputs).shape


@pytest.mark.parametrize("arguments", [{"activation_bits": 8}, {"pin": "ends"}])
def test_what_asks_for_a_graph_is_refused_by_what_hinders_it(arguments):
    model, _ = built("of tensorflow")
    with pytest.raises(ValueError, match=r"line \d+ of subclassed_models.py, in call .*QuantReLU"):
        quantize_model(model, **{"pin": None, **arguments})
    assert type(model.head) is L.Dense, "a model that is refused stays as it is"
    assert type(model) is OfTensorFlow


def test_a_compiled_model_is_compiled_anew():
    model, inputs = built("resnet")
    compiled(model).fit(inputs, np.zeros(16, int), verbose=0)
    quantize_model(model, pin=None)
    assert model.optimizer is None
    with pytest.raises(ValueError, match="compile"):
        model.fit(inputs, np.zeros(16, int), verbose=0)
    compiled(model).fit(inputs, np.zeros(16, int), verbose=0)


def test_layers_are_chosen_and_overridden_as_in_any_model():
    model, _ = built("resnet")
    chosen = {"exclude": "stem", "overrides": {ResidualBlock: 4, "head": (4, 8)}, "pin": None}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize_model(model, **chosen)
    rows = {row.path.split("/", 1)[1]: row for row in kernel_table(model)}
    assert rows["stem/kernel"].bits == 32
    assert rows["head/kernel"].candidates == (4, 8)
    assert {row.candidates for path, row in rows.items() if "residual" in path} == {(4,)}
    with pytest.raises(ValueError, match="has quantized layers already"):
        quantize_model(model)


def test_two_arguments_and_a_dict_of_answers():
    model = TwoInputs()
    before = model(VECTORS, SEQUENCES)["answer"]
    quantize_model(model, (8,), pin=None)
    assert type(model.right) is layers.QuantLSTM
    np.testing.assert_allclose(model(VECTORS, SEQUENCES)["answer"], before, atol=0.1)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_kernels_are_read_in_float32_under_mixed_policies(policy, monkeypatch):
    read, call = [], KernelQuantizer.call
    keras.config.set_dtype_policy(policy)
    try:
        model, inputs = built("autoencoder")
        quantize_model(model, (2,), pin=None)

        def recorded(self, kernel, *args):
            read.append(kernel.dtype)
            return call(self, kernel, *args)

        monkeypatch.setattr(KernelQuantizer, "call", recorded)
        assert model(inputs).dtype == policy.removeprefix("mixed_")
    finally:
        keras.config.set_dtype_policy("float32")
    assert read == [np.float32] * 3


class Auxiliary(keras.Model):
    """Has a layer that only training calls."""

    def __init__(self):
        super().__init__()
        self.head, self.auxiliary = L.Dense(3), L.Dense(3)

    def build(self, input_shape):
        self.head.build(input_shape)

    def call(self, inputs, training=False):
        return self.head(inputs) + (self.auxiliary(inputs) if training else 0.0)


def test_a_layer_that_is_built_after_it_was_made_float_again_is_float():
    model = quantize_model(Auxiliary(), pin=None)
    vectors = np.ones((2, 4), np.float32)
    model(vectors)
    model = dequantize_model(model)
    model(vectors, training=True)
    assert type(model.auxiliary) is L.Dense
    assert len(model.auxiliary.weights) == 2
    quantized = quantize_model(model, pin=None)
    assert len(kernel_table(quantized)) == 2


def test_weights_with_a_layer_that_no_call_reached_load(tmp_path):
    config = bmpq_tf.QuantizationConfig(track_oscillations=True)
    model = quantize_model(Auxiliary(), pin=None, config=config)
    model(np.ones((2, 4), np.float32))
    model.save_weights(tmp_path / "model.weights.h5")
    model.load_weights(tmp_path / "model.weights.h5")
    assert not model.auxiliary.built


def test_steps_of_models_inside_are_traced_anew():
    class Wrapped(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder = keras.Sequential([keras.Input((4,)), L.Dense(3)])

        def build(self, input_shape):
            pass

        def call(self, inputs):
            return self.encoder(inputs)

    model = Wrapped()
    vectors = np.random.default_rng(0).standard_normal((2, 4)).astype("float32")
    model(vectors)
    model.encoder.predict(vectors, verbose=0)
    model = quantize_model(model, (2,), pin=None)
    told = model.encoder.predict(vectors, verbose=0)
    np.testing.assert_allclose(told, model(vectors), rtol=1e-5)


@keras.saving.register_keras_serializable("tests")
class Block(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = L.Dense(3, name="inner")

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 3)


def test_what_a_composite_holds_by_way_of_a_users_class_is_listed():
    inputs = keras.Input((5, 4))
    x = L.TimeDistributed(Block(name="block"), name="each")(inputs)
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))
    with pytest.warns(bmpq_tf.SkippedLayersWarning, match=r"'inner'.*'block' \(Block\).*'each'"):
        quantized = quantize_model(model, pin=None)
    assert [row.bits for row in kernel_table(quantized)] == [32, 8]


@keras.saving.register_keras_serializable("tests")
class Encoder(keras.Sequential):
    """Nothing new."""


def test_what_a_composite_holds_in_a_model_of_a_users_class_is_quantized():
    inputs = keras.Input((5, 4))
    x = L.TimeDistributed(Encoder([keras.Input((4,)), L.Dense(3)]))(inputs)
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))
    assert [row.bits for row in kernel_table(quantize_model(model, pin=None))] == [8, 8]
