"""Each registered layer, exported at each container's width, is packed and answers as Keras does."""

import keras
import pytest
from layer_examples import EXAMPLES, example_inputs

from bmpq_tf import export_tflite, quantize_model
from bmpq_tf.kernels import model_kernels


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_layers_kernels_are_packed(name, bits, tmp_path):
    arguments, shape = EXAMPLES[name]
    data = example_inputs(name, 9)
    inputs = keras.Input(shape, dtype=data.dtype.name)
    model = quantize_model(keras.Model(inputs, getattr(keras.layers, name)(**arguments, name="layer")(inputs)), (bits,), pin=None)
    report = export_tflite(model, tmp_path / "model.tflite", verify_with=data)
    assert [layer.stored_bits for layer in report.layers] == [bits] * len(model_kernels(model))
