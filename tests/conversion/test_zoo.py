"""What a user does, on the architectures that users bring.

Quantize, train, save, load, allocate anew.
"""

import warnings

import keras
import numpy as np
import pytest
from zoo import ZOO, example_batch

import bmpq_tf
from bmpq_tf.model.kernels import compression, model_kernels

BATCH, STEPS = 4, 3
OTHERS = [name for name in ZOO if name != "transformer"]
BUDGETS = (5.0, 9.0)


NAMES = ["transformer", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_is_quantized_trained_saved_loaded_and_allocated_anew(name, tmp_path):
    float_model = ZOO[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error", bmpq_tf.SkippedLayersWarning)
        model = bmpq_tf.quantize_model(float_model, pin=None)
    assert all(state.quantizer for state in model_kernels(model)), "a kernel stayed float"
    assert sum(state.kernel.weights for state in model_kernels(model)) == sum(
        int(np.prod(variable.shape))
        for variable in float_model.trainable_variables
        if len(variable.shape) >= 2 and variable.name != "bias"
    )
    _train(model, BUDGETS[0])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs, _ = example_batch(model, BATCH)
    for mine, theirs in zip(
        _flat(model(inputs, training=False)), _flat(loaded(inputs, training=False)), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    _train(loaded, BUDGETS[1])
    assert _widths(loaded) != _widths(model)


def _train(model: keras.Model, budget: float) -> None:
    """Two epochs with an allocation between them.

    Every kernel must move and be measured, and the budget hold.
    """
    x, y = example_batch(model, BATCH * STEPS)
    before = {state.kernel.path: state.variable.numpy() for state in model_kernels(model)}
    model.compile(keras.optimizers.SGD(1e-3), ["mse"] * len(model.outputs), jit_compile=False)
    callback = bmpq_tf.BMPQCallback(budget, warmup_epochs=1, settle_epochs=1, verbose=0)
    logs = model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[callback]).history
    assert np.all(np.isfinite(logs["loss"]))
    assert logs["bmpq_within_budget"][-1] == 1
    assert compression(model_kernels(model)) >= budget
    for state in model_kernels(model):
        assert not np.array_equal(before[state.kernel.path], state.variable.numpy()), (
            f"{state.kernel.path} did not move"
        )
        assert callback.history[-1]["sensitivity"][state.kernel.path] > 0, (
            f"{state.kernel.path} was not measured"
        )


def _widths(model: keras.Model) -> list[int]:
    return [state.bits for state in model_kernels(model)]


def _flat(outputs) -> list[np.ndarray]:
    return [np.asarray(output) for output in keras.tree.flatten(outputs)]
