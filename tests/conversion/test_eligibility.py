"""What stays float, and is said to.

Unknown classes, kernels that quantization would break, and what Keras has quantized.
"""

import warnings

import keras
import numpy as np
import pytest
from conftest import small_data

from bmpq_tf import SkippedLayersWarning, quantize_model
from bmpq_tf.model.keras_graph import sublayers
from bmpq_tf.model.kernels import model_kernels
from bmpq_tf.reporting.stays_float import why_float

pytestmark = pytest.mark.quick


def with_second_layer(layer, width: int = 4) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(width, name="first"),
            layer,
            keras.layers.Dense(2, name="head"),
        ]
    )


@keras.saving.register_keras_serializable("tests")
class OwnDense(keras.layers.Dense):
    def call(self, inputs, training=None):
        return super().call(inputs)


@keras.saving.register_keras_serializable("tests")
class Holder(keras.layers.Layer):
    """A layer of one's own around one that the registry knows.

    Such as an output that shares the embedding's table.
    """

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, inputs):
        return inputs + self.inner(inputs)

    def get_config(self):
        return {**super().get_config(), "inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("inner")), **config)


def dense(**kwargs) -> keras.layers.Dense:
    return keras.layers.Dense(4, name="odd", **kwargs)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (
            lambda: OwnDense(4, name="odd"),
            "its class derives from Dense and has its own call",
        ),
        (lambda: dense(kernel_constraint="non_neg"), r"kernel is constrained \(NonNeg\)"),
        (lambda: dense(dtype="float64"), "its weights are float64"),
        (lambda: dense(lora_rank=2), "LoRA is enabled"),
        (
            lambda: keras.layers.SpectralNormalization(dense(), name="norm"),
            r"inside 'norm' \(SpectralNormalization\), which rescales its kernel",
        ),
    ],
)
def test_what_would_break_stays_float_with_its_weights_and_the_reason(layer, reason):
    model = with_second_layer(layer())
    for variable in model.trainable_variables:
        variable.assign_add(0.1 * np.ones(variable.shape))
    with pytest.warns(SkippedLayersWarning, match=reason) as caught:
        quantized = quantize_model(model)
    assert len(caught) == 1
    assert str(caught[0].message).count("\n- ") == 1
    states = {state.layer.name: state for state in model_kernels(quantized)}
    assert states["odd"].bits == 32
    inner = next(part for part in sublayers(model) if part.name == "odd")
    np.testing.assert_array_equal(states["odd"].layer.kernel.numpy(), inner.kernel.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize_model(model, exclude=lambda layer: layer.name in ("odd", "norm", "around"))


@keras.saving.register_keras_serializable("tests")
class Places(keras.Model):
    """A model that holds a weight itself, beside a layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.layers.Dense(4, name="inside")

    def build(self, shape):
        self.table = self.add_weight((9, 4), name="table")
        self.inner.build(shape)

    def call(self, inputs):
        return self.inner(inputs + self.table[:1])


def test_what_a_nested_subclassed_model_holds_is_counted_and_told():
    reason = r"'places' \(Places\): bmpq_tf has no quantized twin of its class$"
    with pytest.warns(SkippedLayersWarning, match=reason):
        quantized = quantize_model(with_second_layer(Places(name="places")))
    assert [(state.kernel.weights, state.bits) for state in model_kernels(quantized)] == [
        (16, 8),
        (36, 32),
        (16, 8),
        (8, 8),
    ]


def test_what_a_subclassed_model_holds_itself_is_told_too():
    model = Places(name="places")
    model(np.zeros((2, 4), "float32"))
    with pytest.warns(SkippedLayersWarning, match=r"'places' \(Places\): bmpq_tf has no quantized"):
        quantize_model(model, pin=None)
    states = model_kernels(model)
    (table,) = [state for state in states if state.bits == 32]
    assert why_float(model, states) == {
        table.kernel.path: "bmpq_tf has no quantized twin of its class"
    }


class Unbuilt(keras.Model):
    """One layer that is fine, and one that is not."""

    def __init__(self, odd, **kwargs):
        super().__init__(**kwargs)
        self.fine, self.odd = keras.layers.Dense(4, name="fine"), odd

    def call(self, inputs):
        x = keras.ops.expand_dims(self.fine(inputs), 1)
        given = (x, x) if isinstance(self.odd, keras.layers.MultiHeadAttention) else (x,)
        return self.odd(*given)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (lambda: dense(kernel_constraint="non_neg"), r"'odd' \(Dense\): its kernel is constrained"),
        (lambda: dense(dtype="float64"), r"'odd' \(Dense\): its weights are float64"),
        (
            lambda: keras.layers.MultiHeadAttention(2, 2, kernel_constraint="non_neg", name="odd"),
            r"'odd' \(MultiHeadAttention\): its kernel is constrained",
        ),
        (
            lambda: keras.layers.TimeDistributed(keras.Sequential([dense()])),
            r"'odd' \(Dense\): it is inside 'sequential.*' \(Sequential\), which",
        ),
    ],
)
def test_what_a_model_that_is_not_built_cannot_have_quantized_is_told(odd, reason):
    model = Unbuilt(odd())
    with pytest.warns(SkippedLayersWarning, match=reason):
        quantize_model(model, pin=None)
    model(np.zeros((2, 4), "float32"))
    widths = {state.kernel.path.split("/")[1]: state.bits for state in model_kernels(model)}
    assert widths.pop("fine") == 8
    assert set(widths.values()) == {32}


def test_a_layer_without_a_twin_and_a_kernel_without_elements_stay_float():
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.ConvLSTM1D(3, 2, name="odd")(keras.layers.Reshape((3, 12, 2))(inputs))
    x = keras.layers.Concatenate()(
        [
            keras.layers.Flatten()(x),
            keras.layers.Dense(2, name="nothing")(keras.layers.Flatten()(inputs[:, :0])),
        ]
    )
    model = keras.Model(
        inputs, keras.layers.Dense(2, name="head")(keras.layers.Dense(3, name="hidden")(x))
    )
    reasons = (
        r"(?s)'conv_lstm_cell' .*: it is inside 'odd' \(ConvLSTM1D\).*'nothing' \(Dense\): its "
        r"kernel has no elements"
    )
    with pytest.warns(SkippedLayersWarning, match=reasons):
        quantized = quantize_model(model)
    images, _ = small_data(4)
    assert np.isfinite(quantized(images)).all()


def test_tied_kernels_stay_float_and_tied():
    table = keras.layers.Dense(4, name="table")
    inputs = keras.Input((4,))
    x = Holder(table, name="around")(keras.layers.Dense(4, name="first")(table(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    with pytest.warns(SkippedLayersWarning, match="'table'"):
        quantized = quantize_model(model)
    assert quantized.get_layer("around").inner._kernel is quantized.get_layer("table")._kernel
    assert sum(state.kernel.weights for state in model_kernels(quantized)) == 4 * 4 + 4 * 4 + 4 * 2
    np.testing.assert_allclose(quantized(np.ones((1, 4))), model(np.ones((1, 4))), atol=0.05)


def test_a_layer_that_also_stands_inside_another_says_so():
    shared = keras.layers.Dense(4, name="shared")
    inputs = keras.Input((3, 4))
    x = keras.layers.TimeDistributed(shared, name="wrapper")(shared(inputs))
    with pytest.warns(SkippedLayersWarning, match="'shared' .*: it is also inside 'wrapper'"):
        quantized = quantize_model(keras.Model(inputs, keras.layers.Dense(2, name="head")(x)))
    assert quantized.get_layer("wrapper").layer._kernel is quantized.get_layer("shared")._kernel


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_what_keras_has_quantized_is_refused(mode):
    model = with_second_layer(dense())
    model.get_layer("odd").quantize(mode)
    with pytest.raises(ValueError, match=rf"Keras has quantized.*Received: 'odd' \({mode}\)"):
        quantize_model(model)


@pytest.mark.parametrize(
    ("layer", "arguments", "message"),
    [
        (
            lambda: dense(kernel_constraint="non_neg"),
            {"overrides": {"odd": 4}},
            "(?s)stay float.*'odd' .*constrained",
        ),
        (
            lambda: dense(dtype="float64"),
            {"layers": "odd"},
            r"(?s)No layer .* would be quantized.*'odd' .*float64",
        ),
    ],
)
def test_an_error_says_why_a_layer_that_was_asked_for_stays_float(layer, arguments, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(with_second_layer(layer()), **arguments)
