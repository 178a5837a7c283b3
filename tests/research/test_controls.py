"""The controls replace gradients and nothing else."""

import numpy as np
import pytest
from conftest import compiled, small_data, small_model
from measurements import measured

from bmpq_research.experiments.controls import METHODS, Control, substituted
from bmpq_research.experiments.train_config import TrainConfig
from bmpq_research.experiments.training import start_allocated
from bmpq_tf import BMPQCallback, estimate_costs, quantize_model
from bmpq_tf.allocation.budget import Budget
from bmpq_tf.model.kernels import model_kernels, within

IMAGES, LABELS = small_data()


def test_controls_replace_the_gradients_and_nothing_else():
    kernels = [measured(0, "a", gain=1.0), measured(1, "b", gain=10.0)]
    assert substituted(kernels, "bmpq") == kernels
    for control in ("error", "random", "reverse"):
        for before, after in zip(kernels, substituted(kernels, control, seed=3), strict=True):
            assert after.weights is before.weights
            assert len(np.unique(after.gradient_abs)) == 1
    error = substituted(kernels, "error")
    assert error[0].gradient_abs[0, 0] == error[1].gradient_abs[0, 0] == 1
    reverse = substituted(kernels, "reverse")
    assert reverse[0].gradient_abs[0, 0] > reverse[1].gradient_abs[0, 0]


def test_random_is_redrawn_for_each_seed_and_only_then():
    kernels = [measured(0, "a"), measured(1, "b")]

    def drawn(seed):
        return [kernel.gradient_abs[0, 0] for kernel in substituted(kernels, "random", seed)]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert drawn(0)[0] != drawn(0)[1]


def test_error_is_the_same_in_every_linear_objective():
    (control,) = substituted([measured()], "error")
    assert estimate_costs(control, [2, 3], "joint") == estimate_costs(
        control, [2, 3], "first_order"
    )


@pytest.mark.parametrize(
    ("method", "objective"),
    [
        ("bmpq", "squared"),
        ("error", "first_order"),
        ("random", "squared"),
        ("reverse", "first_order"),
    ],
)
def test_every_method_meets_the_budget(method, objective):
    model = compiled(quantize_model(small_model(), (2, 4)))
    callback = BMPQCallback("10x", sensitivity=Control(method, objective), verbose=0)
    history = model.fit(IMAGES, LABELS, epochs=3, verbose=0, callbacks=[callback])
    assert history.history["bmpq_within_budget"][-1] == 1


def test_error_decides_without_gradients():
    callback = BMPQCallback("10x", sensitivity=Control("error"), verbose=0)
    model = compiled(quantize_model(small_model(), (2, 4)))
    model.fit(IMAGES, LABELS, epochs=9, initial_epoch=6, verbose=0, callbacks=[callback])
    assert [allocation["epoch"] for allocation in callback.history] == [6]


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match=f"Received: method='magic'. Known: {', '.join(METHODS)}"):
        Control("magic")


def test_a_run_may_start_at_widths_that_the_error_alone_allocates():
    model = quantize_model(small_model(), (2, 3, 4))
    start_allocated(model, TrainConfig(budget="9x", initial_widths="allocated"))
    widths = {state.kernel.path: state.bits for state in model_kernels(model)}
    assert widths != {"stem/kernel": 8, "depthwise/kernel": 4, "hidden/kernel": 4, "head/kernel": 8}
    assert within(Budget.parse("9x"), model_kernels(model))
    start_allocated(model, TrainConfig(budget="20x"))
    assert widths == {state.kernel.path: state.bits for state in model_kernels(model)}
