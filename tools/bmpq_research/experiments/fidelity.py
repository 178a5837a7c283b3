"""How well sensitivities predict.

Kernels of a model in training are made narrow, and the loss increase is set beside the estimates.

Accuracies after training differ by less than the noise of a seed; the loss at the moment of a
decision does not.
"""

import contextlib
import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from scipy.stats import spearmanr

from bmpq_research.datasets import load_dataset, normalised_test_images
from bmpq_research.experiments.controls import Control
from bmpq_research.experiments.train_config import TrainConfig
from bmpq_research.experiments.training import fit, initial_model, quantized_model
from bmpq_tf import allocate_bits
from bmpq_tf.allocation.budget import Budget
from bmpq_tf.model.kernels import KernelState, measurement, model_kernels

DRAWS = 10  # of the random control
_BATCH = 250
# The settings that costs are of.
JUDGED = ("model", "channel_multiplier", "dataset", "candidate_bits", "granularity")
Costs = dict[str, list[float]]
Batch = tuple[tf.Tensor, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """How one way to estimate did.

    Attributes:
        name: such as `"bmpq, squared"`; `"measured"` for the measured increases themselves.
        correlation: Spearman's, over kernels, of the estimates with the measured increases at the
            narrowest width.
        summed: the measured increases of the widths that it allocates, summed over kernels; nats.
        together: the increase when all kernels have these widths at once; nats.
        bits: those widths by kernel; of the last draw where it is random.
    """

    name: str
    correlation: float
    summed: float
    together: float
    bits: dict[str, int]


def fidelity(
    config: TrainConfig, images: int = 2500, verbose: int = 2
) -> tuple[list[Estimate], dict[str, Costs]]:
    """Trains at the widest candidates, then measures what the estimates predict.

    Args:
        config: model, data, epochs, candidates, and the budget of the allocations. The
            sensitivities are those of the last epoch.
        images: of the judged split, that losses are taken over, in equal batches of 250 at most;
            what is left over is left out.
        verbose: as Keras's.

    Returns:
        An `Estimate` a method and objective, and by name the costs that each gave the kernels'
        candidates.

    Raises:
        ValueError, InfeasibleBudgetError, DatasetNotFoundError: as `training.train`.
    """
    dataset = load_dataset(config.dataset, config.data_dir, download=config.download)
    if config.validation:
        dataset = dataset.with_validation(config.validation)
    model = quantized_model(initial_model(config, dataset), config, config.candidate_bits)
    states = model_kernels(model)
    budget = Budget.parse(config.budget)
    budget.check([state.kernel for state in states], config.budget)

    def reset(epoch, logs=None):
        for state in states:
            if state.quantizer:
                state.quantizer.reset_accumulators()

    fit(
        model,
        dataset,
        config,
        [keras.callbacks.LambdaCallback(on_epoch_begin=reset)],
        "fidelity",
        verbose,
    )
    count = min(images, len(dataset.test[1]))
    # Each batch is normalised by itself, so a small one would be another measurement.
    size = math.ceil(count / math.ceil(count / _BATCH))
    chosen = dataclasses.replace(
        dataset, test=tuple(part[: count // size * size] for part in dataset.test)
    )
    return judge(model, budget, list(normalised_test_images(chosen, size)), config.seed)


def judge(
    model: keras.Model, budget: Budget, batches: Sequence[Batch], seed: int = 0
) -> tuple[list[Estimate], dict[str, Costs]]:
    """Measures every kernel at every candidate, and how estimates from its accumulators compare.

    The model is left as it was.

    Args:
        model: quantized, trained at the widest candidates; returns logits.
        budget: of the allocations.
        batches: images as the model takes them, and their classes.
        seed: of the random control.
    """
    states = model_kernels(model)
    loss = _Loss(model, batches)
    opened = [state for state in states if state.is_open]
    measured = {state.kernel.path: _increases(state, loss) for state in opened}
    costs = {"measured": measured} | _estimates(opened, seed)

    def judged(name: str) -> Estimate:
        parts = [
            (costs[key], _allocated(model, costs[key], budget))
            for key in costs
            if key.split(" #")[0] == name
        ]
        narrowest = [measured[state.kernel.path][0] for state in opened]
        return Estimate(
            name,
            statistics.fmean(
                spearmanr([table[state.kernel.path][0] for state in opened], narrowest).statistic
                for table, _ in parts
            ),
            statistics.fmean(
                sum(
                    measured[state.kernel.path][
                        state.kernel.candidates.index(bits[state.kernel.path])
                    ]
                    for state in opened
                )
                for _, bits in parts
            ),
            statistics.fmean(loss.increase(opened, bits) for _, bits in parts),
            parts[-1][1],
        )

    return [judged(name) for name in dict.fromkeys(key.split(" #")[0] for key in costs)], costs


class _Loss:
    """The cross-entropy over fixed batches, normalised by their own statistics as in training,
    which soon follow new widths.
    """

    def __init__(self, model: keras.Model, batches: Sequence[Batch]):
        self._model, self._batches = model, batches
        entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._of = tf.function(lambda images, labels: entropy(labels, model(images, training=True)))
        self.base = self()

    def __call__(self) -> float:
        kept = [variable.numpy() for variable in self._model.non_trainable_variables]
        try:
            return float(
                np.mean([float(self._of(images, labels)) for images, labels in self._batches])
            )
        finally:
            for variable, value in zip(self._model.non_trainable_variables, kept, strict=True):
                variable.assign(value)

    def increase(self, states: Sequence[KernelState], bits: Mapping[str, int]) -> float:
        """Returns by how much the loss rises when these kernels have other widths."""
        with contextlib.ExitStack() as stack:
            for state in states:
                stack.enter_context(_at_width(state, bits[state.kernel.path]))
            return self() - self.base


@contextlib.contextmanager
def _at_width(state: KernelState, bits: int) -> Iterator[None]:
    """Gives a kernel another width for a while, and scales that start anew for it."""
    variables = state.quantizer.variables
    kept = [variable.numpy() for variable in variables]
    state.quantizer.set_width(bits, state.variable)
    try:
        yield
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)


def _increases(state: KernelState, loss: _Loss) -> list[float]:
    """The measured increase at each candidate.

    No wider one may cost more, so that noise does not decide.
    """
    found = [
        loss.increase([state], {state.kernel.path: bits}) for bits in state.kernel.candidates[:-1]
    ]
    return np.maximum.accumulate([0.0, *found[::-1]])[::-1].tolist()


def _estimates(opened: Sequence[KernelState], seed: int) -> dict[str, Costs]:
    # As the callback has it: a layer that is used twice counts twice.
    seen = [state.quantizer.accumulated().uses_seen for state in opened]
    steps = max(min((uses for uses in seen if uses), default=1.0), 1.0)
    known = [measurement(state, uses / steps) for state, uses in zip(opened, seen, strict=True)]

    def costs(method: str, objective: str, draw: int = 0) -> Costs:
        return Control(method, objective, seed * DRAWS + draw)(known)

    told = {
        f"{method}, {objective}": costs(method, objective)
        for method in ("bmpq", "error")
        for objective in ("first_order", "squared")
    }
    told |= {
        f"random, first_order #{draw}": costs("random", "first_order", draw)
        for draw in range(DRAWS)
    }
    return told | {"reverse, first_order": costs("reverse", "first_order")}


def _allocated(model: keras.Model, costs: Costs, budget: Budget) -> dict[str, int]:
    return allocate_bits(model, budget, costs).bits
