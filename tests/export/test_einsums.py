"""Einsums with one matrix a group, position or head, and with none: found and packed."""

import keras
import numpy as np
import pytest
from test_optimize_for import export
from trained_models import with_widths

import bmpq_tf
from bmpq_tf.model.kernels import model_kernels

# By equation: an input's shape and the output's, without batches.
GROUPED = {
    "bsd,sde->bse": ((4, 5), (4, 7)),
    "bsd,dts->btd": ((4, 5), (3, 5)),
    "bshd,hde->bshe": ((4, 2, 5), (4, 2, 7)),
    "besf,edf->besd": ((3, 4, 5), (3, 4, 7)),
    "bhwc,hwcd->bhwd": ((3, 4, 5), (3, 4, 7)),
}
WITHOUT_AXIS = {
    "bsd,ds->bsd": ((4, 5), (4, 5)),
    "bsd,sd->bs": ((4, 5), (4,)),
    "abcd,cd->ab": ((4, 2, 3), (4,)),
    "bhwc,hwc->bc": ((3, 4, 5), (5,)),
    "bd,de->bde": ((5,), (5, 7)),
}
VECTORS = {
    "bsd,d->bsd": ((4, 5), (4, 5)),
    "bsd,s->bsd": ((4, 5), (4, 5)),
    "...x,x->...x": ((4, 5), 5),
    "bsd,s->bd": ((4, 5), (5,)),
}


def model_of(equation, shapes, **settings):
    """A Dense before it and a BatchNorm with factors behind it."""
    shape, output = shapes
    inputs = keras.Input(shape)
    x = keras.layers.Dense(shape[-1])(inputs)
    x = keras.layers.EinsumDense(equation, output, bias_axes=equation[-1], name="sums")(x)
    bn = keras.layers.BatchNormalization()
    x = keras.layers.Flatten()(bn(x))
    bn.gamma.assign(np.linspace(0.5, 1.5, bn.gamma.shape[0]))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    data = np.random.default_rng(0).standard_normal((32, *shape)).astype("float32")
    return with_widths(model, [4], **settings), data


def check(model, data, path, kind):
    report, _ = export(model, path, kind, data)
    assert report.parity.rms < (1e-3 if kind == "size" else 0.1)
    return [layer for layer in report.layers if "sums" in layer.name]


FAST = ("bsd,sde->bse", "besf,edf->besd", "bsd,sd->bs", "bd,de->bde")


@pytest.mark.parametrize(
    ("equation", "kind"),
    [
        pytest.param(
            equation, kind, marks=() if equation in FAST and kind == "size" else pytest.mark.slow
        )
        for equation in (*GROUPED, *WITHOUT_AXIS)
        for kind in ("size", "latency", "integer")
    ],
)
def test_the_kernel_of_an_einsum_is_packed(equation, kind, tmp_path):
    model, data = model_of(equation, (GROUPED | WITHOUT_AXIS)[equation])
    (layer,) = check(model, data, tmp_path / "model.tflite", kind)
    assert layer.stored_bits == 4 if kind == "size" else layer.stored_bits in (4, 8)
    # One scale is what the integer kernels of products take, and what was trained.
    assert not (kind == "integer" and equation in GROUPED and "rounded once more" in layer.note)


@pytest.mark.parametrize("kind", ["size", "integer"])
def test_groups_have_scales_for_output_units_in_common(kind, tmp_path):
    model, data = model_of("bsd,sde->bse", GROUPED["bsd,sde->bse"], granularity="channel")
    (state,) = [state for state in model_kernels(model) if "sums" in state.kernel.path]
    assert state.kernel.channels == 7
    (layer,) = check(model, data, tmp_path / "model.tflite", kind)
    assert ("rounded once more" in layer.note) == (kind == "integer")


@pytest.mark.parametrize("kind", ["size", pytest.param("integer", marks=pytest.mark.slow)])
@pytest.mark.parametrize("equation", VECTORS)
def test_a_vector_stays_float_and_counts_nothing(equation, kind, tmp_path):
    shape, output = VECTORS[equation]
    model, data = model_of(equation, (shape, output))
    assert not check(model, data, tmp_path / "model.tflite", kind)
    assert not [row for row in bmpq_tf.kernel_table(model) if "sums" in row.path]


def test_a_conversion_leaves_the_layer_as_it_was(tmp_path):
    model, data = model_of("bsd,sd->bs", WITHOUT_AXIS["bsd,sd->bs"])
    before, order = np.asarray(model(data)), [variable.path for variable in model.weights]
    check(model, data, tmp_path / "model.tflite", "size")
    np.testing.assert_array_equal(model(data), before)
    assert [variable.path for variable in model.weights] == order
    # Files store variables by their order.
    model.save_weights(tmp_path / "model.weights.h5")
    other, _ = model_of("bsd,sd->bs", WITHOUT_AXIS["bsd,sd->bs"])
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other(data), before)
