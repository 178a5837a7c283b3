"""Runs that share one model: each answers as a fresh model would."""

import keras
import numpy as np
import pytest
from conftest import compiled, small_data, small_model

from bmpq_tf import AllocationError, BMPQCallback, Budget, quantize_model
from bmpq_tf.model.kernels import allocation_history
from bmpq_tf.tuning.goal import Goal
from bmpq_tf.tuning.search_data import fit_arguments
from bmpq_tf.tuning.shared_runs import SharedRuns


@pytest.mark.filterwarnings("ignore:No allocation before", "ignore:Training ended over")
def test_a_run_without_widths_in_time_is_no_answer(monkeypatch):
    def late(*given):
        raise AllocationError("none within 0 s")

    monkeypatch.setattr(BMPQCallback, "_solve", late)
    data = fit_arguments(small_data(), 16, "train")
    runs = SharedRuns(
        quantize_model(small_model(), (2, 4, 8), pin=None),
        lambda: (data, []),
        data,
        lambda one, _: compiled(one, metrics=["accuracy"]),
        Goal("accuracy", "max", True, 0.9, 1.0),
        0,
    )
    with pytest.raises(AllocationError, match=r"A run under '2\.5 bits' ended over it"):
        runs.run(Budget(average_bits=2.5), 3, [])


@pytest.mark.slow
def test_a_shared_run_is_what_a_fresh_model_would_have_been():
    def model():
        keras.utils.set_random_seed(3)
        base = small_model()
        dropped = keras.layers.Dropout(0.3, seed=5)(base.get_layer("flatten").output)
        for name in ("hidden", "head"):
            dropped = base.get_layer(name)(dropped)
        return quantize_model(keras.Model(base.input, dropped), (2, 4, 8), pin=None)

    images, labels = small_data(64)
    data = fit_arguments((images, labels), 16, "train")

    def runs():
        return SharedRuns(model(), lambda: (data, []), data, compile_small, goal, 0)

    goal = Goal("accuracy", "max", True, 0.9, 1.0, float_parts=(0.9, 0.9))

    def compile_small(one, _):
        compiled(one, metrics=["accuracy"])

    shared, fresh = runs(), runs()
    shared.run(Budget(average_bits=2.5), 3, [])
    again, alone = (one.run(Budget(average_bits=4), 3, []) for one in (shared, fresh))
    assert again == alone
    for ours, other in zip(shared.model.get_weights(), fresh.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, other)
    histories = [allocation_history(one.model) for one in (shared, fresh)]
    assert histories[0] == histories[1]
    assert histories[0]
