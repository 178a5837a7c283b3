"""Models of recurrent layers, with each kernel at another width, and data for them."""

import keras
import numpy as np

from bmpq_tf import quantize_model
from bmpq_tf.model.kernels import model_kernels

layers = keras.layers


WIDTHS = (2, 4, 8, 3)


def sequences(steps: int | None, *layer, size: int = 5, **kwargs) -> keras.Model:
    x = inputs = keras.Input((steps, size), **kwargs)
    for one in layer:
        x = one(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def masked(*layer) -> keras.Model:
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    for one in layer:
        x = one(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def with_widths(model: keras.Model, widths=WIDTHS, **kwargs) -> keras.Model:
    quantized = quantize_model(model, (2, 3, 4, 8), pin=None, **kwargs)
    for number, state in enumerate(model_kernels(quantized)):
        if state.quantizer:
            state.quantizer.set_width(widths[number % len(widths)], state.variable)
    return quantized


def data_for(model: keras.Model, count: int = 7) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    arrays = []
    for tensor in model.inputs:
        shape = (count, *(size or 9 for size in tensor.shape[1:]))
        if tensor.dtype == "int32":
            steps = np.arange(shape[1]) < np.arange(count)[:, None] % shape[1]
            arrays.append((generator.integers(1, 10, shape) * steps).astype("int32"))
        else:
            arrays.append(generator.standard_normal(shape).astype("float32"))
    return arrays
