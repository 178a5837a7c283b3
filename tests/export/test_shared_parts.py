"""Parts that a model calls more than once, in every kind of file."""

import keras
import numpy as np
import pytest
from test_optimize_for import export
from trained_models import with_widths

KINDS = ("size", "latency", "integer")


def normalised(layers, generator, shifted=False) -> keras.Sequential:
    """Layers on vectors of 6, the first a BatchNorm with factors that are not one.

    Without an offset, the converter multiplies them into the columns of what comes next.
    """
    model = keras.Sequential([keras.Input((6,)), *layers])
    for variable in layers[0].weights:
        if shifted or variable.name in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    return model


def thrice(generator) -> keras.Model:
    """One network on three inputs."""
    inputs = [keras.Input((6,)) for _ in range(3)]
    layers = [keras.layers.BatchNormalization(), keras.layers.Dense(4, activation="tanh")]
    shared = normalised(layers, generator)
    joined = keras.layers.Concatenate()([shared(one) for one in inputs])
    return keras.Model(inputs, keras.layers.Dense(2)(joined))


def nested(generator) -> keras.Model:
    """A network that is called twice in one that is called three times."""
    pair = [keras.Input((6,)) for _ in range(2)]
    layers = [keras.layers.BatchNormalization(), keras.layers.Dense(6, activation="relu")]
    inner = normalised(layers, generator)
    outer = keras.Model(pair, keras.layers.Add()([inner(one) for one in pair]))
    first, second, third = inputs = [keras.Input((6,)) for _ in range(3)]
    rounds = [outer([first, second]), outer([second, third]), outer([first, third])]
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()(rounds)))


def chained(generator) -> keras.Model:
    """One BatchNorm on an input, where it stays, and behind a layer, where it becomes its bias."""
    inputs = [keras.Input((6,)) for _ in range(2)]
    bn, dense = layers = [keras.layers.BatchNormalization(), keras.layers.Dense(6)]
    normalised(layers, generator, shifted=True)
    ends = [dense(bn(inputs[0])), dense(bn(dense(keras.layers.ReLU()(bn(inputs[1])))))]
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Subtract()(ends)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [thrice, nested, chained])
def test_what_is_called_again_and_again_is_exported(build, kind, tmp_path):
    generator = np.random.default_rng(0)
    model = with_widths(build(generator), [4])
    data = [generator.standard_normal((32, 6)).astype("float32") for _ in model.inputs]
    report, file = export(model, tmp_path / "model.tflite", kind, data)
    names = [tensor.name for subgraph in file.subgraphs for tensor in subgraph.tensors]
    assert len(set(names)) == len(names)
    assert report.parity.rms < (1e-3 if kind == "size" else 0.1)
