"""How often a kernel's weights are multiplied for one example, and budgets of bit operations."""

import keras
from conftest import small_model

from bmpq_tf import Budget, quantize_model
from bmpq_tf.model.kernels import model_kernels


def test_bit_operations_count_the_width_that_a_kernel_reads():
    model = quantize_model(small_model(), (2, 4), activation_bits=4, pin="ends")
    (limit,) = Budget(bit_operations=1e9).limits([state.kernel for state in model_kernels(model)])
    macs = [16 * 72, 16 * 72, 128 * 6, 6 * 3]
    assert limit.coefficients == (
        (macs[0] * 8 * 8,),
        (macs[1] * 8, macs[1] * 16),
        (macs[2] * 8, macs[2] * 16),
        (macs[3] * 8 * 4,),
    )


def test_macs_are_those_of_the_positions_that_a_kernel_is_applied_at():
    words = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(100, 8, name="words")(words)
    x = keras.layers.EinsumDense("abc,cde->abde", (5, 2, 3), name="heads")(x)
    x = keras.layers.EinsumDense("abde,ef->abdf", (5, 2, 3), bias_axes="df", name="floats")(x)
    inner_inputs = keras.Input((5, 6))
    inner = keras.Model(inner_inputs, keras.layers.Dense(6, name="twice")(inner_inputs))
    x = inner(inner(keras.layers.Reshape((5, 6))(x)))
    steps = keras.layers.TimeDistributed(keras.layers.Dense(2, name="step"))
    x = keras.layers.PReLU(name="slopes")(x)
    x = keras.layers.Reshape((5, 6, 1))(x)
    x = keras.layers.Reshape((5, 6))(
        keras.layers.ConvLSTM1D(1, 2, padding="same", return_sequences=True, name="unknown")(x)
    )
    model = quantize_model(
        keras.Model(words, steps(x)), pin=None, exclude=["floats", "slopes", "unknown"]
    )
    found = [(state.layer.name, state.kernel.macs) for state in model_kernels(model)]
    assert found[:6] == [
        ("words", 0),
        ("heads", 5 * 8 * 6),
        ("floats", 5 * 2 * 9),
        ("floats", 0),
        ("twice", 2 * 5 * 36),
        ("slopes", 5 * 6),
    ]
    assert {macs for _, macs in found[6:-1]} == {None}
    assert found[-1] == ("step", None)


def test_macs_of_images_of_open_size_are_not_known():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.PReLU(shared_axes=[1, 2], name="slopes")(keras.layers.Conv2D(4, 3)(inputs))
    model = quantize_model(keras.Model(inputs, keras.layers.Conv2D(2, 1)(x)), exclude="slopes")
    assert {state.kernel.macs for state in model_kernels(model)} == {None}
