"""`BMPQCallback`: reads bit gradients, asks the solver, assigns widths, while `fit` runs."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from bmpq_tf.allocation.budget import Budget, InfeasibleBudgetError
from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.allocation.sensitivity import Measurement
from bmpq_tf.allocation.solver import AllocationError, Solution
from bmpq_tf.model.kernels import (
    KernelState,
    allocation_history,
    compression,
    history_of,
    measurement,
    model_kernels,
    within,
)
from bmpq_tf.training import decision_record, device_budget
from bmpq_tf.training.allocator import assign, open_kernels, solve
from bmpq_tf.training.decision_options import Sensitivity, checked_arguments, costs_by, objective_of
from bmpq_tf.training.event_files import checked_folder
from bmpq_tf.training.gradient_sums import GradientSums
from bmpq_tf.training.kernel_optimizers import KernelOptimizers
from bmpq_tf.training.optimizer_state import optimizers_in
from bmpq_tf.training.quantized_part import other_part, quantized_part
from bmpq_tf.training.schedule import Schedule
from bmpq_tf.training.telling import Telling
from bmpq_tf.training.tracking_checks import check_tracking, checked_kernels


class BMPQCallback(keras.callbacks.Callback):
    """Re-allocates the widths of a quantized model under a hard budget while it trains (after BMPQ,
    DATE 2022).

    The schedule: `warmup_epochs` at the widest candidates; then, every `interval_epochs`, read the
    sensitivities, solve, assign, reset; the last `settle_epochs` keep the assignment, so that the
    weights were trained at their final widths.

    The budget is of the model that is fitted, or of the only quantized model inside one that trains
    it in a way of its own: `keras.distillation.Distiller`, a `train_step`, a generator beside its
    critic. `model=` names it. Networks beside it do not count; the fitted need not be built.

    Everything that a decision needs lies in the model's variables and file, so
    `bmpq_tf.BackupAndRestore`, `ModelCheckpoint` and `.keras` files resume with the same widths,
    sensitivities, schedule and history. Decisions fall in `on_epoch_begin`, so the order among
    callbacks does not matter for them. Each epoch's logs get `bmpq_compression`, `bmpq_bits`
    (average per weight) and `bmpq_within_budget` (1 or 0); callbacks that come after this one see
    them, Keras's own `History` always does. A second callback's have its model's name behind them,
    and `bmpq_within_budget` is then of both. Choose the best model only among epochs within the
    budget: `EarlyStopping(restore_best_weights=True)` wants `start_from_epoch=warmup_epochs`, or it
    may bring the widths of the warm-up back, after this callback's last look.

    In a training loop of your own, `keras.callbacks.CallbackList` drives it
    (`examples/own_loop.py`). The optimizer that trains a kernel is found, among those that the
    models were compiled with or hold as attributes, by whose variables it has: its loss scale is
    divided out of the sensitivities, its slots start anew with a learned scale. Of several workers
    (`bmpq_tf.prepare_for_workers`) each has its callback, and the chief decides.

    Args:
        budget: `"10x"`, `"2.5 bits"`, `"120 kB"`, `"64 kB flash, 48 kB ram"` (of the file that
            `optimize_for="micro"` writes), a number (compression) or a `bmpq_tf.Budget`.
        model: the quantized model that the budget is of, in the fitted one or beside it; found by
            itself where exactly one lies inside.
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
        log_dir: a folder for TensorBoard, which may be that of Keras's own callback: by kernel its
            width, at each epoch, and sensitivity, at each allocation; the table of `summary`; the
            picture of widths over epochs. Steps are epochs. Needs the extra `tensorboard`.
        verbose: 1 prints a line for each allocation (for one that repeats the last a single time),
            and first what `pin="auto"` made of the model's ends; 0 nothing.

    Attributes:
        history: list of every allocation so far: `epoch`, `status`, `budget`, and by kernel `bits`,
            `sensitivity` and `enbg`.

    Raises:
        ValueError: an argument is not understood; from `fit`, before any training: the model has no
            quantized layers or does not track sensitivities, several quantized models lie in it, no
            optimizer is found that trains it (at the latest after an epoch), or `fit` is too short.
        InfeasibleBudgetError: likewise: the candidates cannot meet the budget.
        AllocationError: likewise: a minute did not tell whether they meet flash and RAM together.
        ModuleNotFoundError: `log_dir` without its extra.
        OSError: from `fit`, before any training: `log_dir` cannot be written to.

    Example:
        >>> callback = bmpq_tf.BMPQCallback("8x", verbose=0)
        >>> told = model.fit(images, labels, epochs=3, callbacks=[callback], verbose=0)
        >>> told.history["bmpq_within_budget"]
        [0.0, 1.0, 1.0]

        A student, while a teacher trains it:

        >>> apart = keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence())
        >>> distiller = keras.distillation.Distiller(
        ...     teacher=float_model, student=model, distillation_losses=apart
        ... )
        >>> distiller.compile("adam", "sparse_categorical_crossentropy")
        >>> callback = bmpq_tf.BMPQCallback("12x", model=model, verbose=0)
        >>> told = distiller.fit(images, labels, epochs=3, callbacks=[callback], verbose=0)
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
        model: keras.Model | None = None,
        warmup_epochs: int = 1,
        interval_epochs: int = 1,
        settle_epochs: int | None = None,
        sensitivity: "str | Sensitivity" = "first_order",
        min_improvement: float = 0.0,
        time_limit: float = 60.0,
        log_dir: "str | os.PathLike | None" = None,
        verbose: int = 1,
    ):
        super().__init__()
        if model is not None and not isinstance(model, keras.Model):
            raise ValueError(
                f"model is the quantized keras.Model that the budget is of. Received: {model!r}."
            )
        self._named = model
        self.budget = Budget.parse(budget)
        self._said = budget
        self.schedule = Schedule(warmup_epochs, interval_epochs, settle_epochs)
        self._costs_of = costs_by(sensitivity)
        self.min_improvement, self.time_limit = checked_arguments(min_improvement, time_limit)
        self.sensitivity = sensitivity
        self.verbose = verbose
        self._log_dir = checked_folder(log_dir)

    @property
    def history(self) -> list[dict]:
        """Every allocation that the model has been through, oldest first."""
        return allocation_history(self._part_of(self.model))

    def check(self, model: keras.Model, epochs: int) -> None:
        """Raises, as `fit` would before training, if this model cannot be trained for so many
        epochs under the budget.

        Example:
            >>> bmpq_tf.BMPQCallback("8x").check(model, epochs=1)
            Traceback (most recent call last):
            ValueError: fit ...
        """
        part = self._part_of(model)
        states = checked_kernels(part)
        check_tracking(states, self._needs_gradients, objective_of(self.sensitivity))
        self.schedule.check(epochs)
        self._plan = device_budget.plan_for(part, self.budget)
        try:
            device_budget.check(*self._asked(open_kernels(states)))
        except InfeasibleBudgetError as error:
            raise InfeasibleBudgetError(f"{error}{other_part(part, states)}") from error

    def _asked(self, states: Sequence[KernelState]) -> tuple:
        return [state.kernel for state in states], self.budget, self._plan, self._said

    @property
    def is_within_budget(self) -> bool:
        """Whether the widths of the model that it trains, or trained last, meet the budget."""
        return within(self.budget, self._states, self._plan)

    def _part_of(self, fitted: keras.Model) -> keras.Model:
        return quantized_part(fitted) if self._named is None else self._named

    def on_train_begin(self, logs=None):
        self.check(self.model, self.params["epochs"])
        self._has_trained = self._has_stepped = False
        self._first_epoch: int | None = None
        self._part = self._part_of(self.model)
        self._states = model_kernels(self._part)
        decision_record.begin(self._states, self.budget)
        self._sums = GradientSums(self._states)
        self._optimizers = KernelOptimizers(self.model, self._part, self._states)
        self._telling = Telling(self.model, self._part, self._states, self.verbose, self._log_dir)

    def on_epoch_begin(self, epoch, logs=None):
        if self._first_epoch is None:
            self._first_epoch = epoch
            history = history_of(self._states)
            others = history and history[-1]["budget"] != self.budget.to_dict()
            if not history or (others and not self.is_within_budget):
                first = epoch + (self._needs_gradients and not self._sums.batches_seen())
                self.schedule.check_begin(epoch, first, self.params["epochs"])
        if self._is_due(epoch):
            self._decide(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        # The first step has built its optimizers by now; waiting for more would lose more.
        if batch and not self._has_stepped:
            self._has_stepped = True
            self._optimizers.settle()

    def on_epoch_end(self, epoch, logs=None):
        self._optimizers.settle(is_epoch_end=True)
        self._has_trained = True
        if logs is not None:
            # Another callback, of another model that is trained with this one, was first.
            second = self._named is not None and "bmpq_bits" in logs
            of, ratio = f"_{self._part.name}" if second else "", compression(self._states)
            logs.update({f"bmpq_compression{of}": ratio, f"bmpq_bits{of}": FLOAT_BITS / ratio})
            within_all = logs["bmpq_within_budget"] if second else 1.0
            logs["bmpq_within_budget"] = min(within_all, float(self.is_within_budget))
        self._telling.epoch_ended(epoch)

    def on_train_end(self, logs=None):
        self._telling.ended()
        self._optimizers.forget()
        if not self.is_within_budget:
            warnings.warn(
                f"Training ended over the budget of {self.budget}: the model is "
                f"{compression(self._states):.2f}x smaller than float32. "
                "No allocation was possible before settling began (see the messages above), or "
                "another width was restored.",
                stacklevel=2,
            )

    def _is_due(self, epoch: int) -> bool:
        if not self.schedule.decides(epoch, self.params["epochs"]):
            return False
        seen, history = self._sums.batches_seen(), history_of(self._states)
        if not self._has_trained and not history and not seen and self._needs_gradients:
            return False
        # A checkpoint from the middle of an epoch holds that epoch's decision already.
        decided = history and history[-1]["epoch"] == epoch
        steps = self.params.get("steps") or np.inf
        fresh = seen < steps * self.model.distribute_strategy.num_replicas_in_sync
        return not (decided and fresh and not self._has_trained)

    @property
    def _needs_gradients(self) -> bool:
        return getattr(self.sensitivity, "needs_gradients", True)

    def _decide(self, epoch: int) -> None:
        if not self._sums.are_finite(self._needs_gradients):
            self._telling.stayed(
                epoch, "a kernel, or half of its gradients, was not finite; the widths stay"
            )
            self._sums.reset()
            return
        unreached = self._sums.unreached() if self._needs_gradients else set()
        states = open_kernels(self._states, unreached)
        try:
            device_budget.check_each(*self._asked(states))
        except InfeasibleBudgetError as error:
            lost = f"no gradients reached {', '.join(sorted(unreached))}; " if unreached else ""
            self._telling.stayed(epoch, f"{lost}the widths stay. {error}")
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
        changed = assign(self._states, solution.bits, optimizers_in(self.model, self._part))
        objective = objective_of(self.sensitivity)
        decision_record.keep(self._states, epoch, self.budget, solution, measured, objective)
        self._sums.reset()
        self._telling.decided(epoch, solution, changed, unreached)

    def _solve(self, states: Sequence[KernelState]) -> tuple[Solution, dict[str, Measurement]]:
        """Returns the widths, and what was measured of each kernel that gradients reached."""
        measured = self._sums.measured()
        choosable = [state for state in states if len(state.kernel.candidates) > 1]
        found = solve(
            states,
            self.budget,
            self._costs_of([measured.get(s.kernel.path) or measurement(s) for s in choosable]),
            self.model.distribute_strategy,
            self.min_improvement,
            self.time_limit,
            self._plan,
        )
        return found, measured
