"""Oscillating weights: noticed, held at their commonest integer, released by a change of width."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import bmpq_tf
from bmpq_tf.arithmetic import oscillations, quantizers
from bmpq_tf.arithmetic.oscillations import HELD, MOMENTUM
from bmpq_tf.layers import QuantDense
from bmpq_tf.model.kernels import read


def reference(integers: list[int], threshold: float) -> tuple[float, float]:
    """Follows one weight as the paper says it.

    Returns its frequency and the mean of its integer.
    """
    frequency, mean, direction, held = 0.0, float(integers[0]), 0, None
    for last, present in itertools.pairwise(integers):
        if held is not None:
            continue
        change = present - last
        frequency += MOMENTUM * (float(change * direction < 0) - frequency)
        mean += MOMENTUM * (present - mean)
        direction = np.sign(change) or direction
        if frequency > threshold:
            held = round(mean)
    return (frequency, mean) if held is None else (HELD, held)


@settings(max_examples=40, deadline=None)
@given(
    steps=hnp.arrays(
        np.int64, st.tuples(st.integers(2, 30), st.just(5)), elements=st.integers(-2, 1)
    ),
    threshold=st.floats(0.005, 0.1),
)
def test_every_weight_is_followed_as_the_definition_says(steps, threshold):
    known = oscillations.first((5,))
    for integers in steps:
        held = known.frequency == HELD
        known = oscillations.after_step(
            known, tf.where(held, known.mean, tf.constant(integers, tf.float32)), threshold
        )
    for weight in range(5):
        frequency, mean = reference(steps[:, weight].tolist(), threshold)
        # Single precision decides either way where the frequency lies on the threshold.
        if not (math.isfinite(frequency) and abs(frequency - threshold) < 1e-6):
            assert known.frequency[weight].numpy() == pytest.approx(frequency, abs=1e-6)
            assert known.mean[weight].numpy() == pytest.approx(mean, abs=1e-5)


def test_weights_of_symmetric_levels_are_held_at_one_of_them():
    known = oscillations.first((3,))
    # The means stay near where they began.
    for step in range(12):
        levels = [1.5, -1.5, 0.5] if step % 4 else [0.5, -0.5, -0.5]
        held = known.frequency == HELD
        known = oscillations.after_step(
            known,
            tf.where(held, known.mean, tf.constant(levels)),
            0.01,
            lambda mean: quantizers.rounded(mean, 2, "symmetric"),
        )
    assert (known.frequency == HELD).numpy().all()
    assert known.mean.numpy().tolist() == [0.5, -0.5, -0.5]


def dense(**quantizer) -> tuple[keras.Model, QuantDense]:
    layer = QuantDense(
        2,
        use_bias=False,
        quantizer={"candidate_bits": [2, 4], "track_oscillations": True, **quantizer},
    )
    model = keras.Sequential([keras.Input((3,)), layer])
    layer._kernel.assign([[0.2, -0.4], [0.3, 0.5], [-0.6, 0.1]])
    layer.kernel_quantizer.initialise_scale(layer._kernel)
    return model, layer


def gradients(layer: QuantDense) -> list[np.ndarray]:
    quantizer = layer.kernel_quantizer
    with tf.GradientTape() as tape:
        tape.watch([layer._kernel.value, quantizer.log_gain.value])
        # Gentle enough for the scale's gradient to stay below its bound.
        loss = tf.reduce_sum(layer.kernel * [[0.125, 0.25], [0.375, 0.5], [0.625, 0.75]])
    return [
        np.asarray(of)
        for of in tape.gradient(loss, [layer._kernel.value, quantizer.log_gain.value])
    ]


def jump(layer: QuantDense, steps: int) -> None:
    """Moves the first weight between two integers; it is at one of them two steps of three."""
    scale = float(layer.kernel_quantizer.scale(layer._kernel)[0, 0])
    for step in range(steps):
        kernel = layer._kernel.numpy()
        kernel[0, 0] = scale * (0.0 if step % 3 == 0 else 1.0)
        layer._kernel.assign(kernel)
        gradients(layer)


def test_a_jumping_weight_is_held_where_it_was_most_and_others_go_on():
    _, layer = dense()
    quantizer = layer.kernel_quantizer
    # Long enough for the average to forget where the weight began.
    jump(layer, 300)
    quantizer.freezing_threshold.assign(0.05)
    jump(layer, 3)
    held = read(quantizer.turn_frequency) == HELD
    assert held.tolist() == [[True, False], [False, False], [False, False]]
    kernel = layer._kernel.numpy()
    kernel[:, 0] = -10.0, 1.01 * kernel[1, 0], 1.5 * kernel[2, 0]
    layer._kernel.assign(kernel)
    scale = float(quantizer.scale(layer._kernel)[0, 0])
    assert quantizer.integers(layer._kernel)[0, 0] == 1.0
    assert layer.kernel[0, 0].numpy() == scale
    to_weights, to_gain = gradients(layer)
    assert to_weights[0, 0] == 0.0
    # The second weight is inside the range, the third is clipped.
    assert to_weights[1:, 0].tolist() == [0.375, 0.0]
    # The scale moves what is held as it moves what is clipped: S dL/dS has g q S of both, and g (q
    # S - w) of what is inside.
    _, inside, clipped = np.asarray(quantizer.integers(layer._kernel))[:, 0] * scale
    assert to_gain[0, 0] == pytest.approx(
        0.125 * scale + 0.375 * (inside - kernel[1, 0]) + 0.625 * clipped, rel=1e-4
    )


def test_a_change_of_width_releases_and_an_infinite_threshold_holds_nothing():
    _, layer = dense()
    quantizer = layer.kernel_quantizer
    jump(layer, 60)
    assert np.all(np.isfinite(read(quantizer.turn_frequency)))
    assert read(quantizer.turn_frequency)[0, 0] > 0.05
    quantizer.freezing_threshold.assign(0.05)
    jump(layer, 3)
    assert read(quantizer.turn_frequency)[0, 0] == HELD
    quantizer.set_width(2, layer._kernel)
    assert not np.any(read(quantizer.turn_frequency))
    gradients(layer)
    np.testing.assert_array_equal(read(quantizer.last_integers), quantizer.integers(layer._kernel))
    assert not np.any(read(quantizer.last_direction)), (
        "from one width's integers to another's is no direction"
    )


def small_model() -> keras.Model:
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(12, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(hidden))


@pytest.mark.slow
def test_the_last_epochs_freeze_and_the_file_holds_what_was_frozen(tmp_path):
    keras.utils.set_random_seed(0)
    model = bmpq_tf.quantize_model(
        small_model(), (2, 4), config=bmpq_tf.QuantizationConfig(track_oscillations=True)
    )
    model.compile(
        keras.optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((64, 6)).astype("float32"), generator.integers(0, 3, 64)
    callbacks = [bmpq_tf.BMPQCallback(3.0, verbose=0), bmpq_tf.FreezeOscillations(0.015)]
    shares = model.fit(x, y, batch_size=4, epochs=9, callbacks=callbacks, verbose=0).history[
        "frozen_weights"
    ]
    assert not any(shares[:6])
    assert shares[-1] > 0.0
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.models.load_model(path)
    for before, after in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))
    report = bmpq_tf.export_tflite(model, tmp_path / "model.tflite", verify_with=x)
    assert report.parity.agreement == 1.0
    # Another fit without the callback freezes nothing more; one with it begins anew.
    assert all(
        read(layer.kernel_quantizer.freezing_threshold) == math.inf for layer in model.layers[1:]
    )
    again = model.fit(
        x, y, batch_size=4, epochs=3, callbacks=bmpq_tf.FreezeOscillations(0.015), verbose=0
    ).history["frozen_weights"]
    assert not any(again[:2])
    # A file of an epoch that freezes does not freeze in a fit without the callback.
    model.layers[1].kernel_quantizer.freezing_threshold.assign(0.015)
    model.save(path)
    again = keras.models.load_model(path)
    assert read(again.layers[1].kernel_quantizer.freezing_threshold) == math.inf


def test_what_cannot_freeze_is_refused():
    with pytest.raises(
        ValueError,
        match=r"threshold is a share of the steps, between 0 and 1. Received: threshold=1.5",
    ):
        bmpq_tf.FreezeOscillations(1.5)
    with pytest.raises(
        ValueError,
        match=r"last_epochs must be a whole number of epochs, 1 or more. Received: last_epochs=0",
    ):
        bmpq_tf.FreezeOscillations(last_epochs=0)
    model = bmpq_tf.quantize_model(small_model())
    model.compile("sgd", "mse")
    with pytest.raises(
        ValueError,
        match=r"tracks no oscillations. .*QuantizationConfig\(track_oscillations=True\)",
    ):
        model.fit(
            np.ones((4, 6)), np.ones((4, 3)), callbacks=[bmpq_tf.FreezeOscillations()], verbose=0
        )
