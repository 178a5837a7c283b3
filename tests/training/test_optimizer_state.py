"""What an optimizer remembers of a learned scale starts anew where the scale does, whatever the
optimizer calls it.
"""

import keras
import numpy as np
import pytest
from conftest import compiled, small_data, small_model

from bmpq_tf import quantize_model
from bmpq_tf.model.kernels import model_kernels
from bmpq_tf.training.optimizer_state import reset_slots

IMAGES, LABELS = small_data()


def test_learned_scales_and_their_slots_start_anew_only_where_the_width_changes():
    model = compiled(
        quantize_model(small_model(), (2, 4)), optimizer=keras.optimizers.SGD(0.1, momentum=0.9)
    )
    model.fit(IMAGES, LABELS, verbose=0)
    states = {state.layer.name: state for state in model_kernels(model)}
    slots = {v.name: v for v in model.optimizer.variables if "log_gain" in v.name}
    hidden, depthwise = (
        next(v for name, v in slots.items() if layer in name) for layer in ("hidden", "depthwise")
    )
    kept = depthwise.numpy()
    assert np.any(hidden.numpy() != 0)
    reset_slots(model.optimizer, states["hidden"].quantizer.log_gain)
    assert np.all(hidden.numpy() == 0)
    np.testing.assert_array_equal(depthwise.numpy(), kept)


def test_accumulators_start_anew_where_they_began():
    model = compiled(
        quantize_model(small_model(), (2, 4)),
        optimizer=keras.optimizers.Ftrl(0.1, initial_accumulator_value=0.2),
    )
    model.fit(IMAGES, LABELS, verbose=0)
    gain = next(
        state.quantizer.log_gain for state in model_kernels(model) if state.layer.name == "hidden"
    )
    reset_slots(model.optimizer, gain)
    slots = {
        slot.name.removeprefix("hidden_kernel_quantizer_log_gain_"): np.unique(slot)
        for slot in model.optimizer.variables
        if "hidden" in slot.name
    }
    assert np.allclose(slots["accumulator"], 0.2)
    assert not slots["linear"].any()


@pytest.mark.slow
def test_factored_slots_start_anew_too():
    model = compiled(
        quantize_model(small_model(), (2, 4)), optimizer=keras.optimizers.Adafactor(0.1)
    )
    model.fit(IMAGES, LABELS, verbose=0)
    gain = next(
        state.quantizer.log_gain for state in model_kernels(model) if state.layer.name == "hidden"
    )
    rows = {
        variable.path: row
        for variable, row in zip(model.trainable_variables, model.optimizer._r, strict=True)
    }
    assert np.any(rows[gain.path])
    reset_slots(model.optimizer, gain)
    assert not np.any(rows.pop(gain.path))
    assert any(np.any(row) for row in rows.values())


def test_slots_of_another_kernel_of_the_same_path_are_left():
    def tower(name):
        inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Dense(4, name="dense")(inputs), name=name)

    inputs = keras.Input((4,))
    model = quantize_model(
        keras.Model(inputs, keras.layers.Add()([tower("left")(inputs), tower("right")(inputs)])),
        pin=None,
    )
    model.compile("adam", "mse", jit_compile=False)
    data = np.random.default_rng(0).standard_normal((8, 4)).astype("float32")
    model.fit(data, data, verbose=0)
    momenta = [
        slot for slot in model.optimizer.variables if slot.name.endswith("log_gain_momentum")
    ]
    assert [bool(np.any(slot)) for slot in momenta] == [True, True]
    reset_slots(model.optimizer, model_kernels(model)[1].quantizer.log_gain)
    assert [bool(np.any(slot)) for slot in momenta] == [True, False]
