"""What `quantize_model` and `dequantize_model` refuse, and what they say."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import small_model

import bmpq_tf
from bmpq_tf import QuantizationConfig, dequantize_model, quantize_model

# As in a script, where a function refers to a layer by a global name.
TABLE = keras.layers.Embedding(10, 4, name="table")


def test_a_subclassed_model_without_layers_is_told_so():
    class Custom(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match=r"No layer of model '.*' would be quantized"):
        quantize_model(Custom(), pin=None)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (lambda: keras.Sequential([keras.layers.Dense(2)]), {}, "is not built"),
        (lambda: quantize_model(small_model()), {}, "has quantized layers already"),
        (small_model, {"layers": "nope"}, r"No layer is called 'nope'.*stem"),
        (small_model, {"layers": keras.layers.Conv1D}, r"No layer .* would be quantized"),
        (small_model, {"candidate_bits": (1,)}, "integer from 2 to 8"),
        (
            small_model,
            {"config": lambda: QuantizationConfig(pinned_bits=16)},
            "integer from 2 to 8",
        ),
        (
            small_model,
            {"config": lambda: QuantizationConfig(pinned_bits=(4, 8))},
            r"pinned_bits is one width.*Received: pinned_bits=\(4, 8\)",
        ),
        (
            small_model,
            {"config": lambda: QuantizationConfig(scale="magic")},
            r"Unknown scale.*learned",
        ),
        (
            small_model,
            {"exclude": small_model().layers[1]},
            "Layer 'stem' is not in the model.*head",
        ),
        (small_model, {"exclude": [3]}, "takes layers, their names, classes and predicates"),
        (small_model, {"overrides": {"nope": 4}}, r"No layer is called 'nope'"),
        (small_model, {"overrides": {"hidden": 9}}, "integer from 2 to 8"),
        (
            small_model,
            {"overrides": [4]},
            r"overrides maps names, classes or layers to widths.*Received: overrides=\[4\]",
        ),
        (
            small_model,
            {"overrides": {"hidden": 4}, "exclude": "hidden"},
            r"layers that stay float.*Received: overrides=\{'hidden': 4\}",
        ),
    ],
)
def test_bad_input_is_named(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(
            make(),
            **{name: value() if name == "config" else value for name, value in arguments.items()},
        )


def test_dequantize_needs_quantized_layers():
    with pytest.raises(ValueError, match="no quantized layers"):
        dequantize_model(small_model())
    with pytest.raises(TypeError, match="Expected a Keras 3 model"):
        quantize_model("model.keras")


def test_another_backend_of_keras_is_refused_at_import(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ImportError, match=r"TensorFlow backend\. Received: .*'jax'.*KERAS_BACKEND"):
        importlib.reload(bmpq_tf)


def test_what_a_copy_could_not_follow_is_refused_by_name():
    embedding = keras.layers.Embedding(10, 4, name="table")
    tokens = keras.Input((3,), dtype="int32")
    hidden = keras.layers.Dense(4)(embedding(tokens))
    tied = keras.ops.einsum("bsd,vd->bsv", hidden, embedding.embeddings)
    with pytest.raises(ValueError, match=r"\(Einsum\) .* reads a weight of layer 'table'"):
        quantize_model(keras.Model(tokens, tied))

    def logits(x):
        return keras.ops.matmul(x, keras.ops.transpose(embedding.embeddings))

    with pytest.raises(ValueError, match=r"\(Lambda\) .* reads a weight of layer 'table'"):
        quantize_model(keras.Model(tokens, keras.layers.Lambda(logits)(hidden)))

    by_name = keras.layers.Lambda(lambda x: keras.ops.matmul(x, TABLE.embeddings.value[:4]))
    with pytest.raises(ValueError, match=r"\(Lambda\) .* reads a weight of layer 'table'"):
        quantize_model(keras.Model(tokens, by_name(keras.layers.Dense(4)(TABLE(tokens)))))

    encoder = keras.Sequential([keras.Input((3, 4)), keras.layers.Dense(4, name="inner")])
    again = keras.layers.Lambda(lambda x: encoder(x))
    with pytest.raises(ValueError, match=r"\(Lambda\) .* reads a weight of layer 'inner'"):
        quantize_model(keras.Model(tokens, again(encoder(embedding(tokens)))))

    class Traced(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(2)

        @tf.function
        def call(self, x):
            return self.dense(x)

    traced = Traced(name="net")
    traced(np.ones((1, 2), "float32"))
    with pytest.raises(ValueError, match=r"The call of 'net' \(Traced\) is a tf.function"):
        quantize_model(traced, pin=None)
