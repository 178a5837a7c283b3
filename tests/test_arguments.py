"""Numbers as people write them: integers for floats, NumPy's scalars, arrays of one element."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled

import bmpq_tf
from bmpq_tf import BMPQCallback, Budget, FreezeOscillations, QuantizationConfig, layers
from bmpq_tf.arguments import plain, real, whole
from bmpq_tf.layers import QuantizerConfig


@pytest.mark.quick
def test_numbers_are_read_whoever_made_them():
    for six in (6, np.int64(6), np.uint8(6), np.array(6), tf.constant(6)):
        assert (whole(six), type(whole(six))) == (6, int)
    for six in (6, 6.0, np.float32(6), np.float16(6), np.int8(6), np.array(6.0), tf.constant(6.0)):
        assert (real(six), type(real(six))) == (6.0, float)
    for none in (True, np.True_, "6", None, [6], np.array([6])):
        assert whole(none) is real(none) is None
    assert whole(6.0) is whole(np.float32(6)) is None
    assert plain(np.True_) is True
    assert plain([1, 2]) == [1, 2]


@pytest.mark.quick
@pytest.mark.parametrize("eight", [8, np.int64(8), np.array(8), [np.int8(8)], np.array([8, 8])])
def test_widths_are_plain_integers_in_configs(eight):
    config = QuantizationConfig(candidate_bits=eight, pinned_bits=eight)
    assert (config.candidate_bits, config.pinned_bits) == ((8,), 8)
    one = np.ravel(eight)[0]
    told = QuantizerConfig(
        eight, activation_bits=one, input_bits=one, pinned=np.True_, track_oscillations=np.int64(1)
    )
    # Without NumPy's types, which JSON does not take.
    assert json.loads(json.dumps(told.to_dict())) == told.to_dict()
    assert told.pinned is told.track_oscillations is True


@pytest.mark.quick
@pytest.mark.parametrize("make", [np.float32, np.float64, np.int64, np.array, float])
def test_budgets_and_schedules_take_numbers_of_numpy(make):
    assert Budget.parse(make(8)) == Budget(compression=make(8)) == Budget.parse("8x")
    callback = BMPQCallback(make(8), min_improvement=make(0), time_limit=make(60))
    assert (callback.min_improvement, callback.time_limit) == (0.0, 60.0)
    assert type(callback.time_limit) is float
    two = BMPQCallback("8x", warmup_epochs=np.int64(2), settle_epochs=np.array(2)).schedule
    assert (two.warmup_epochs, two.settle_epochs, type(two.warmup_epochs)) == (2, 2, int)
    freeze = FreezeOscillations(np.float32(0.5), last_epochs=np.int64(2))
    assert (freeze.threshold, freeze.last_epochs) == (0.5, 2)


LIMITS = {
    "int": lambda: keras.layers.ReLU(6),
    "float32": lambda: keras.layers.ReLU(np.float32(6)),
    "int64": lambda: keras.layers.ReLU(max_value=np.int64(6), negative_slope=np.int64(0)),
    "array": lambda: keras.layers.ReLU(np.array(6.0), threshold=0),
    "ours": lambda: layers.QuantReLU(6, 0, 0, bits=np.int64(8)),
    "ours of numpy": lambda: layers.QuantReLU(np.float64(6), bits=8),
}


@pytest.mark.parametrize(
    "limit", ["int", *(pytest.param(one, marks=pytest.mark.slow) for one in list(LIMITS)[1:])]
)
def test_a_limit_of_any_kind_trains_is_saved_and_is_exported(limit, tmp_path):
    inputs = keras.Input((5,))
    relu = LIMITS[limit]()
    outputs = layers.QuantDense(3)(relu(layers.QuantDense(4)(inputs)))
    model = keras.Model(inputs, outputs)
    if not isinstance(relu, layers.QuantReLU):
        hidden = keras.layers.Dense(4)(inputs)
        model = keras.Model(inputs, keras.layers.Dense(3)(relu(hidden)))
        model = bmpq_tf.quantize_model(model, (2, np.int64(8)), activation_bits=np.int64(8))
    (rounded,) = [layer for layer in model.layers if isinstance(layer, layers.QuantReLU)]
    assert rounded.activation_quantizer.limit == rounded.max_value == 6.0
    x = 9 * np.random.default_rng(0).standard_normal((16, 5)).astype("float32")
    compiled(model).fit(x, np.arange(16) % 3, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert bmpq_tf.export_tflite(loaded, tmp_path / "m.tflite", verify_with=x).parity.holds


@pytest.mark.parametrize("make", [np.float32, np.float64, int])
def test_fused_batch_normalization_takes_them_as_keras_does(make):
    x = np.random.default_rng(0).standard_normal((8, 4, 4, 3)).astype("float32")
    ours, theirs = (
        cls(axis=np.int64(-1), momentum=make(1), epsilon=make(1))
        for cls in (layers.FusedBatchNormalization, keras.layers.BatchNormalization)
    )
    np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-5)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, atol=1e-6)


def test_budgets_overrides_costs_and_widths_of_numpy_allocate():
    float_model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(8, name="b")]
    )
    model = bmpq_tf.quantize_model(
        float_model, np.array([2, 4, 8]), pin=None, overrides={"b": np.int64(4)}
    )
    rows = {row.path.split("/")[-2]: row for row in bmpq_tf.kernel_table(model)}
    assert (rows["a"].candidates, rows["b"].candidates) == ((2, 4, 8), (4,))
    path = rows["a"].path
    costs = {path: np.array([2, 1, 0], np.float32)}
    solution = bmpq_tf.allocate_bits(
        model, np.float32(8), costs, min_improvement=np.float32(0), time_limit=np.int64(60)
    )
    assert solution.bits[path] == 4
    assert bmpq_tf.assign_bits(model, {path: np.int64(2)}) == [path]
