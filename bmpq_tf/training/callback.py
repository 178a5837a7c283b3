"""`BMPQCallback`: reads bit gradients, asks the solver, assigns widths, while `fit` runs."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from bmpq_tf.allocation.budget import Budget, InfeasibleBudgetError, is_number
from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.allocation.sensitivity import Measurement
from bmpq_tf.allocation.solver import AllocationError, Solution
from bmpq_tf.model.kernels import (
    KernelState,
    allocation_history,
    compression,
    measurement,
    model_kernels,
    within,
)
from bmpq_tf.model.summary import AUTO, told_ends
from bmpq_tf.training import decision_record, device_budget, distribution
from bmpq_tf.training.allocator import (
    Sensitivity,
    assign,
    costs_by,
    objective_of,
    open_kernels,
    solve,
)
from bmpq_tf.training.gradient_sums import GradientSums
from bmpq_tf.training.schedule import Schedule
from bmpq_tf.training.tracking_checks import check_tracking, divide_out_loss_scale


class BMPQCallback(keras.callbacks.Callback):
    """Re-allocates the widths of a quantized model under a hard budget while it trains (after BMPQ,
    DATE 2022).

    The schedule: `warmup_epochs` at the widest candidates; then, every `interval_epochs`, read the
    sensitivities, solve, assign, reset; the last `settle_epochs` keep the assignment, so that the
    weights were trained at their final widths.

    Everything that a decision needs lies in the model's variables and file, so `BackupAndRestore`,
    `ModelCheckpoint` and `.keras` files resume with the same widths, sensitivities, schedule and
    history. Decisions fall in `on_epoch_begin`, so the order among callbacks does not matter for
    them. Each epoch's logs get `bmpq_compression`, `bmpq_bits` (average per weight) and
    `bmpq_within_budget` (1 or 0); callbacks that come after this one see them, Keras's own
    `History` always does. Choose the best model only among epochs within the budget:
    `EarlyStopping(restore_best_weights=True)` wants `start_from_epoch=warmup_epochs`, or it may
    bring the widths of the warm-up back, after this callback's last look.

    In a training loop of your own, `keras.callbacks.CallbackList` drives it
    (`examples/own_loop.py`). `model.optimizer` is taken for the one that trains the kernels: its
    loss scale is divided out of the sensitivities, its slots start anew with a learned scale. Under
    `MultiWorkerMirroredStrategy` every worker has its callback and the chief decides
    (`bmpq_tf.prepare_for_workers`).

    Args:
        budget: `"10x"`, `"2.5 bits"`, `"120 kB"`, `"64 kB flash, 48 kB ram"` (of the file that
            `optimize_for="micro"` writes), a number (compression) or a `bmpq_tf.Budget`.
        warmup_epochs: epochs before the first decision, at least 1.
        interval_epochs: epochs between decisions, at least 1.
        settle_epochs: epochs at the end without a decision, at least 1; by default a third of the
            epochs.
        sensitivity: what the widths go by: `"first_order"`, `"squared"` or `"joint"` (for which the
            model must track that), readings of the bit gradients (`bmpq_tf.estimate_costs`); or a
            callable. It takes a list of `bmpq_tf.Measurement`, one for each kernel that may change,
            and returns by path the cost of each of the kernel's candidates. Where it has an
            attribute `needs_gradients` that is false, a decision needs none to have arrived.
        min_improvement: share of the present widths' estimated loss increase that other widths must
            save to replace them, 0 to 1. A change of width starts its scales anew, which noise in
            the sensitivities alone should not pay for.
        time_limit: seconds for the solver; `math.inf` for as many as it takes.
        verbose: 1 prints a line for each allocation, and first what `pin="auto"` made of the
            model's ends; 0 nothing.

    Attributes:
        history: list of every allocation so far: `epoch`, `status`, `budget`, and by kernel `bits`,
            `sensitivity` and `enbg`.

    Raises:
        ValueError: an argument is not understood; from `fit`, before any training: the model has no
            quantized layers or does not track sensitivities, has no optimizer, or `fit` is too
            short.
        InfeasibleBudgetError: likewise: the candidates cannot meet the budget.

    Example:
        >>> callback = bmpq_tf.BMPQCallback("8x", verbose=0)
        >>> told = model.fit(images, labels, epochs=3, callbacks=[callback], verbose=0)
        >>> told.history["bmpq_within_budget"]
        [0.0, 1.0, 1.0]
    """

    # Keras sets both before the first call.
    model: keras.Model
    params: dict[str, Any]

    def __init__(
        self,
        budget: "str | float | Budget",
        *,
        warmup_epochs: int = 1,
        interval_epochs: int = 1,
        settle_epochs: int | None = None,
        sensitivity: "str | Sensitivity" = "first_order",
        min_improvement: float = 0.0,
        time_limit: float = 60.0,
        verbose: int = 1,
    ):
        super().__init__()
        self.budget = Budget.parse(budget)
        self._said = budget
        self.schedule = Schedule(warmup_epochs, interval_epochs, settle_epochs)
        self._costs_of = costs_by(sensitivity)
        if not is_number(min_improvement) or not 0.0 <= min_improvement < 1.0:
            raise ValueError(
                "min_improvement is a share, from 0 to below 1. Received: "
                f"min_improvement={min_improvement!r}."
            )
        if not is_number(time_limit) or not time_limit >= 0.0:
            raise ValueError(
                f"time_limit is a number of seconds. Received: time_limit={time_limit!r}. Give "
                "math.inf for none."
            )
        self.sensitivity = sensitivity
        self.min_improvement = min_improvement
        self.time_limit = time_limit
        self.verbose = verbose

    @property
    def history(self) -> list[dict]:
        """Every allocation that the model has been through, oldest first."""
        return allocation_history(self.model)

    def check(self, model: keras.Model, epochs: int) -> None:
        """Raises, as `fit` would before training, if this model cannot be trained for so many
        epochs under the budget.

        Example:
            >>> bmpq_tf.BMPQCallback("8x").check(model, epochs=1)
            Traceback (most recent call last):
            ValueError: fit ...
        """
        if not model.built:
            raise ValueError(
                f"Model '{model.name}' is not built, so its kernels have no size yet. Call it on a "
                "batch or build() it first."
            )
        states = model_kernels(model)
        quantized = [state for state in states if state.quantizer]
        if not quantized:
            raise ValueError(
                f"Model '{model.name}' has no quantized layers, so there are no widths to "
                "allocate. "
                "Make it with bmpq_tf.quantize_model(model), or build it from bmpq_tf.layers."
            )
        check_tracking(quantized, self._needs_gradients, objective_of(self.sensitivity))
        self.schedule.check(epochs)
        kernels = [state.kernel for state in open_kernels(states)]
        self.budget.check(kernels, self._said)
        self._plan = device_budget.plan_for(model, self.budget)
        device_budget.check(kernels, self.budget, self._plan, self._said)

    def on_train_begin(self, logs=None):
        self.check(self.model, self.params["epochs"])
        self._has_trained = False
        self._first_epoch: int | None = None
        self._states = model_kernels(self.model)
        self._sums = GradientSums(self._states)
        divide_out_loss_scale(self.model, self._states)
        if ends := told_ends([state.kernel for state in self._states]):
            self._say(f"{AUTO}: {'; '.join(ends.values())}")

    def on_epoch_begin(self, epoch, logs=None):
        if self._first_epoch is None:
            self._first_epoch = epoch
            self._check_room(epoch)
        if self._is_due(epoch):
            self._decide(epoch)

    def on_epoch_end(self, epoch, logs=None):
        self._has_trained = True
        if logs is not None:
            ratio = compression(self._states)
            logs["bmpq_compression"] = ratio
            logs["bmpq_bits"] = FLOAT_BITS / ratio
            logs["bmpq_within_budget"] = float(within(self.budget, self._states, self._plan))

    def on_train_end(self, logs=None):
        if not within(self.budget, self._states, self._plan):
            warnings.warn(
                f"Training ended over the budget of {self.budget}: the model is "
                f"{compression(self._states):.2f}x smaller than float32. "
                "No allocation was possible before settling began (see the messages above), or "
                "another width was restored.",
                stacklevel=2,
            )

    def _check_room(self, begin: int) -> None:
        """Raises ValueError if a fit that begins in the middle, with a model that was never trained
        under a callback, never decides.
        """
        epochs = self.params["epochs"]
        last = self.schedule.last_decision(epochs)
        first = begin + (self._needs_gradients and not self._sums.batches_seen())
        if self.history or any(
            self.schedule.decides(epoch, epochs) for epoch in range(first, last + 1)
        ):
            return
        raise ValueError(
            f"fit begins at epoch {begin + 1} of {self.params['epochs']} and settles "
            f"after epoch {last}: no decision lies between, and "
            f"none was made before. Received: initial_epoch={begin}, "
            f"epochs={self.params['epochs']}. Epochs of another model do not "
            "count: leave initial_epoch out, or give a larger epochs."
        )

    def _is_due(self, epoch: int) -> bool:
        if not self.schedule.decides(epoch, self.params["epochs"]):
            return False
        seen = self._sums.batches_seen()
        if not self._has_trained and not self.history and not seen and self._needs_gradients:
            return False
        # A checkpoint from the middle of an epoch holds that epoch's decision already.
        decided = self.history and self.history[-1]["epoch"] == epoch
        fresh = (
            seen
            < (self.params.get("steps") or np.inf)
            * self.model.distribute_strategy.num_replicas_in_sync
        )
        return not (decided and fresh and not self._has_trained)

    @property
    def _needs_gradients(self) -> bool:
        return getattr(self.sensitivity, "needs_gradients", True)

    def _decide(self, epoch: int) -> None:
        finite, seen = self._sums.uses()
        if any(good < 0.5 * uses for good, uses in zip(finite, seen, strict=True)):
            self._say(
                f"epoch {epoch + 1}: fewer than half of the gradients were finite; the widths stay"
            )
            self._sums.reset()
            return
        reached = zip(self._sums.opened, seen, strict=True)
        unreached = {
            state.kernel.path for state, uses in reached if not uses and self._needs_gradients
        }
        states = open_kernels(self._states, unreached)
        kernels = [state.kernel for state in states]
        try:
            self.budget.check(kernels, self._said)
            device_budget.check(kernels, self.budget, self._plan, self._said)
        except InfeasibleBudgetError as error:
            self._say(
                f"epoch {epoch + 1}: no gradients reached {', '.join(sorted(unreached))}; the "
                f"widths stay. {error}"
            )
            return
        try:
            solution, measured = self._solve(states)
        except AllocationError as error:
            # The training so far is worth more than this decision; over budget at the end is told
            # there.
            warnings.warn(
                f"No allocation before epoch {epoch + 1}; the widths stay. {error}", stacklevel=2
            )
            return
        changed = assign(self._states, solution.bits, self.model.optimizer)
        objective = objective_of(self.sensitivity)
        decision_record.keep(self._states, epoch, self.budget, solution, measured, objective)
        self._sums.reset()
        self._say(decision_record.line(self._states, epoch, solution, changed, unreached))

    def _solve(self, states: Sequence[KernelState]) -> tuple[Solution, dict[str, Measurement]]:
        """Returns the widths, and what was measured of each kernel that gradients reached."""
        measured = self._sums.measured()
        choosable = [
            measured.get(s.kernel.path) or measurement(s)
            for s in states
            if len(s.kernel.candidates) > 1
        ]
        costs = self._costs_of(choosable)
        found = solve(
            states,
            self.budget,
            costs,
            self.model.distribute_strategy,
            self.min_improvement,
            self.time_limit,
            self._plan,
        )
        return found, measured

    def _say(self, line: str) -> None:
        if self.verbose and distribution.is_chief(self.model.distribute_strategy):
            print(f"BMPQ {line}", flush=True)
