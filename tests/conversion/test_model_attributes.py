"""What was set on a model comes along in its copy, or is named."""

import keras
import pytest
from conftest import small_model

from bmpq_tf import quantize_model


class Tempered(keras.Model):
    def __init__(self, *args, share=0.2, **kwargs):
        super().__init__(*args, **kwargs)
        self.share = share


def test_numbers_that_were_set_on_a_model_come_along_and_what_does_not_is_named():
    inputs = keras.Input((3,))
    model = Tempered(inputs, keras.layers.Dense(2)(inputs), share=0.7)
    model.temperature, model.sizes, model._hidden = 4.0, [1, 2], "of its class"
    copy = quantize_model(model)
    assert (copy.share, copy.temperature, list(copy.sizes)) == (0.7, 4.0, [1, 2])
    assert not hasattr(copy, "_hidden")
    model.teacher = small_model()
    with pytest.warns(UserWarning, match=r"lacks attributes .* 'teacher' \(Functional\)"):
        quantize_model(model)


def test_a_copy_compiles_with_the_loss_scale_of_its_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small_model()
    finally:
        keras.config.set_dtype_policy("float32")
    copy = quantize_model(model)
    copy.compile("adam", "mse")
    assert copy.dtype_policy == model.dtype_policy
    assert isinstance(copy.optimizer, keras.optimizers.LossScaleOptimizer)


def test_a_model_that_a_model_has_beside_its_graph_is_left_out():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(3, name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    model.extractor = keras.Model(inputs, hidden)
    with pytest.warns(UserWarning, match=r"'extractor' \(Functional\)"):
        copy = quantize_model(model, pin=None)
    assert len(copy.layers) == 3
