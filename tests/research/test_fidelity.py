"""What sensitivities predict is measured on the model itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled

from bmpq_research.experiments.fidelity import judge
from bmpq_tf import Budget, quantize_model


def test_a_kernel_that_does_not_matter_is_measured_as_such_and_narrowed():
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(64, 6)).astype("float32")
    labels = (images[:, 0] > 0).astype("int64")
    inputs = keras.Input((6,))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(8, name="first")(inputs))
    idle = keras.layers.Rescaling(0.0)(keras.layers.Dense(8, name="idle")(x))
    slight = keras.layers.Rescaling(0.05)(keras.layers.Dense(8, name="slight")(x))
    x = keras.layers.Add()([keras.layers.Dense(8, name="busy")(x), slight, idle])
    model = compiled(
        quantize_model(keras.Model(inputs, keras.layers.Dense(2, name="last")(x)), (2, 8))
    )
    model.fit(images, labels, epochs=20, batch_size=16, verbose=0)
    before = [weight.numpy() for weight in model.weights]

    batches = [(tf.constant(images), tf.constant(labels))]
    estimates, costs = judge(model, Budget.parse("5x"), batches)

    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    assert costs["measured"]["idle/kernel"] == [0.0, 0.0]
    narrow, widest = costs["measured"]["busy/kernel"]
    assert narrow > widest == 0.0
    told = {estimate.name: estimate for estimate in estimates}
    assert set(told) == {"measured", "random, first_order", "reverse, first_order"} | {
        f"{method}, {objective}"
        for method in ("bmpq", "error")
        for objective in ("first_order", "squared")
    }
    for name in ("measured", "bmpq, first_order", "bmpq, squared"):
        assert told[name].correlation == pytest.approx(1.0)
        assert (told[name].bits["idle/kernel"], told[name].bits["busy/kernel"]) == (2, 8)
        # Only the slight one is narrow and matters at all.
        assert told[name].summed == costs["measured"]["slight/kernel"][0]
        assert told[name].together == pytest.approx(told[name].summed, abs=1e-6)
    assert told["reverse, first_order"].bits["busy/kernel"] == 2
    assert told["reverse, first_order"].summed >= narrow
    assert told["reverse, first_order"].together > told["bmpq, squared"].together
