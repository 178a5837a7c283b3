"""Which activations quantize_model rounds, at which width kernels then read, and that models train
and come back so.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled, small_data, small_model

from bmpq_research.experiments.recipe import sgd
from bmpq_research.experiments.train_config import TrainConfig
from bmpq_research.experiments.training import train
from bmpq_tf import BMPQCallback, dequantize_model, layers, quantize_model
from bmpq_tf.arithmetic.activations import first_range
from bmpq_tf.layers.base import QuantizedLayer
from bmpq_tf.model.kernels import model_kernels

IMAGES, LABELS = small_data()


def placed(model) -> dict[str, tuple]:
    """What each layer rounds: a ReLU its output; a weighted layer its input and its output."""
    found = {}
    for layer in model._flatten_layers():
        if isinstance(layer, layers.QuantReLU):
            found[layer.name] = layer.activation_quantizer.bits
        if isinstance(layer, QuantizedLayer):
            found[layer.name] = tuple(
                quantizer and quantizer.bits
                for quantizer in (layer.input_quantizer, layer.output_quantizer)
            )
    return found


def read(model) -> dict[str, int]:
    return {
        state.kernel.path.split("/")[-2]: state.kernel.activation_bits
        for state in model_kernels(model)
    }


def mobile() -> keras.Model:
    """Raw input with preprocessing, ReLU6 in two spellings, a linear bottleneck, a residual sum,
    swish, and a branch of rounded parts.
    """
    k = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = k.ZeroPadding2D()(k.Rescaling(2.0)(inputs))
    x = k.Conv2D(4, 3, name="stem")(x)
    start = k.Activation("relu6", name="relu6")(k.BatchNormalization()(x))
    x = k.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise")(start)
    x = k.BatchNormalization()(k.Conv2D(4, 1, name="bottleneck")(x))
    x = k.Conv2D(4, 1, name="after_sum")(k.Add()([x, start]))
    x = k.Activation("swish")(x)
    x = k.Conv2D(4, 1, name="after_swish")(x)
    rounded = k.ReLU(name="relu")(x)
    leaky = k.ReLU(negative_slope=0.1, name="leaky")(x)
    pooled = k.Dropout(0.1)(k.MaxPooling2D()(k.Concatenate()([rounded, start])))
    a = k.Dense(4, activation="relu", name="after_pool")(k.Flatten()(pooled))
    b = k.Dense(4, name="after_leaky")(k.GlobalAveragePooling2D()(leaky))
    c = k.Dense(4, name="after_mean")(k.GlobalAveragePooling2D()(rounded))
    return keras.Model(inputs, k.Dense(2, name="head")(k.Concatenate()([a, b, c])))


def test_pact_stands_at_each_relu_and_a_signed_quantizer_where_a_layer_reads_anything_else():
    model = quantize_model(mobile(), activation_bits=4)
    assert placed(model) == {
        "stem": (8, None),
        "relu6": 4,
        "depthwise": (None, 4),
        "bottleneck": (None, None),
        "after_sum": (4, None),
        "after_swish": (4, None),
        "relu": 4,
        "after_pool": (None, 4),
        "after_leaky": (4, None),
        "after_mean": (4, None),
        "head": (4, None),
    }
    assert type(model.get_layer("leaky")) is keras.layers.ReLU
    assert (
        model.get_layer("relu6").activation_quantizer.limit
        == model.get_layer("depthwise").output_quantizer.limit
        == 6
    )
    assert model.get_layer("after_sum").input_quantizer.signed
    assert read(model) == {
        name: 8 if name == "stem" else 4 for name in placed(model) if name not in ("relu6", "relu")
    }
    again = model.from_config(model.get_config())
    assert placed(again) == placed(model)


def test_floats_stay_floats_without_activation_bits():
    model = quantize_model(mobile())
    assert set(placed(model).values()) == {(None, None)}
    assert set(read(model).values()) == {32}


def test_nested_models_shared_layers_and_outputs():
    k = keras.layers
    tokens, inputs = keras.Input((4,), dtype="int32"), keras.Input((4,))
    shared = k.Dense(4, name="shared")
    inner_input = keras.Input((4,))
    inner = keras.Model(
        inner_input,
        k.ReLU(name="inner_relu")(k.Dense(4, name="inner_dense")(inner_input)),
        name="inner",
    )
    words = k.Dense(4, name="words")(k.Embedding(7, 3, name="table")(tokens))
    x = inner(k.Dense(4, activation="relu", name="first")(inputs))
    # Shared reads the nested ReLU's integers and the float of a linear layer.
    y = k.Add()([shared(x), shared(k.Dense(4, name="linear")(x))])
    end = k.ReLU(name="end")(y)
    behind = k.Dense(4, activation="relu", name="behind_end")(end)
    model = keras.Model([tokens, inputs], [words, k.Reshape((2, 2))(end), behind])
    model = quantize_model(model, activation_bits=2, pin=None)
    assert placed(model) == {
        "table": (None, None),
        "words": (2, None),
        "first": (8, 2),
        "inner_relu": 2,
        "inner_dense": (None, None),
        "shared": (2, None),
        "linear": (None, None),
        "behind_end": (2, None),
    }


def test_tensorflows_relus_are_keras_ones():
    inputs = keras.Input((3,))
    x = keras.layers.Dense(4, activation=tf.nn.relu, name="one")(inputs)
    x = keras.layers.Activation(tf.nn.relu6, name="six")(keras.layers.Dense(4, name="two")(x))
    model = quantize_model(
        keras.Model(inputs, keras.layers.Dense(2, name="head")(x)), activation_bits=4
    )
    assert placed(model) == {"one": (8, 4), "two": (None, None), "six": 4, "head": (None, None)}


def test_exclude_and_layers_choose_relus_too_and_what_reads_them_rounds_for_itself():
    assert placed(quantize_model(small_model(), activation_bits=4, exclude="relu")) == {
        "stem": (8, None),
        "depthwise": (4, None),
        "hidden": (4, 4),
        "head": (None, None),
    }
    assert placed(quantize_model(small_model(), activation_bits=4, layers="hidden")) == {
        "hidden": (4, 4)
    }


def test_the_second_kernel_of_a_separable_convolution_reads_floats():
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), keras.layers.SeparableConv2D(3, 3, name="one")]
    )
    states = model_kernels(quantize_model(model, activation_bits=8))
    assert [state.kernel.activation_bits for state in states] == [8, 32]


def test_dequantize_gives_plain_relus_on_the_same_kernels():
    model = small_model()
    plain = dequantize_model(quantize_model(model, activation_bits=2))
    assert all(type(layer).__module__.startswith("keras.") for layer in plain.layers)
    np.testing.assert_array_equal(plain(IMAGES), dequantize_model(quantize_model(model))(IMAGES))


def test_clips_are_not_decayed():
    model = quantize_model(small_model(), activation_bits=4)
    optimizer = sgd(learning_rate=0.1, steps=10)
    optimizer.build(model.trainable_variables)
    clips = [variable for variable in model.trainable_variables if variable.name == "log_clip"]
    assert len(clips) == 4
    assert not any(optimizer._use_weight_decay(variable) for variable in clips)


@pytest.mark.slow
def test_a_subclassed_model_trains_with_xla_under_the_callback():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            config = {"candidate_bits": (2, 4)}
            self.first = layers.QuantDense(
                6, activation="relu", quantizer={**config, "input_bits": 8, "activation_bits": 4}
            )
            self.middle = layers.QuantDense(6, quantizer=config)
            self.identity = layers.QuantIdentity(bits=4)
            self.head = layers.QuantDense(3, quantizer=config)

        def call(self, inputs):
            return self.head(self.identity(self.middle(self.first(inputs))))

    model, images = Net(), IMAGES.reshape(32, -1)
    model(images[:1])
    compiled(model, jit_compile=True)
    callback = BMPQCallback("10x", verbose=0)
    model.fit(
        images, LABELS, epochs=3, batch_size=8, shuffle=False, verbose=0, callbacks=[callback]
    )
    assert len(callback.history) == 2
    clips = [
        float(variable) for variable in model.trainable_variables if variable.name == "log_clip"
    ]
    assert len(clips) == 3
    assert all(clips)
    clip, zero_point = first_range(tf.constant(images[:8]), 8, signed=True)
    quantizer = model.first.input_quantizer
    assert float(quantizer.first_range[0]) == pytest.approx(float(clip))
    assert quantizer.zero_point == zero_point
    # What each layer reads is seen by following the class's code.
    assert [state.kernel.activation_bits for state in model_kernels(model)] == [8, 4, 4]


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "accuracy"), [(8, 0.95), (4, 0.95), (2, 0.88)])
def test_digits_are_learned_from_scratch_and_the_file_answers_as_keras_does(
    bits, accuracy, tmp_path
):
    pytest.importorskip("sklearn")
    from bmpq_research.experiments.outcome import write_outcome

    run = train(TrainConfig(activation_bits=bits, epochs=12, budget="8x"), verbose=0)
    assert run.accuracy["keras"] >= accuracy
    exported, judged = write_outcome(run, tmp_path)
    assert abs(judged["tflite"] - judged["keras"]) <= 1 / 360
    assert exported.parity.agreement >= 359 / 360
    model = keras.models.load_model(tmp_path / "model.keras")
    for mine, theirs in zip(run.model.weights, model.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=mine.path)


def test_layers_inside_layers_round_what_they_read_and_recurrent_cells_do_not():
    k = keras.layers
    inputs = keras.Input((None, 6))
    x = k.TimeDistributed(k.Dense(4, activation="relu", name="inner"))(inputs)
    x = k.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = k.SimpleRNN(4, activation="relu", name="rnn")(x)
    model = quantize_model(
        keras.Model(inputs, k.Dense(3, name="head")(x)), activation_bits=4, pin=None
    )
    found = placed(model)
    cell = found.pop(next(name for name in found if "cell" in name))
    assert cell == (None, None)
    assert found == {
        # The model's input; what is rounded already; what only Keras's own code hands on.
        "inner": (8, 4),
        **dict.fromkeys(("query", "key", "value"), (None, None)),
        **dict.fromkeys(("attention_output", "head"), (4, None)),
    }
    assert read(model)["query"] == 4
    with pytest.raises(ValueError, match="activations of a recurrent cell stay float"):
        layers.QuantLSTMCell(4, quantizer={"activation_bits": 4})


def test_whole_numbers_and_outputs_are_not_rounded_inside_layers_either():
    k = keras.layers
    tokens = keras.Input((3, 4), dtype="int32")
    x = k.TimeDistributed(k.Embedding(1000, 5, name="table"))(tokens)
    x = k.TimeDistributed(k.Flatten())(x)
    outputs = k.TimeDistributed(k.Dense(2, activation="relu", name="last"))(x)
    model = quantize_model(keras.Model(tokens, outputs), activation_bits=2, pin=None)
    assert placed(model) == {"table": (None, None), "last": (2, None)}
    with pytest.raises(ValueError, match="reads whole numbers"):
        layers.QuantEmbedding(9, 2, quantizer={"input_bits": 8})


def test_a_relu_is_an_output_behind_a_nested_model_that_only_reshapes():
    k = keras.layers
    inner = keras.Sequential([keras.Input((2, 3)), k.Flatten()], name="flat")
    inputs = keras.Input((2, 3))
    outputs = inner(k.Dense(3, activation="relu", name="last")(k.Dense(3, name="first")(inputs)))
    assert placed(quantize_model(keras.Model(inputs, outputs), activation_bits=4, pin=None))[
        "last"
    ] == (4, None)
