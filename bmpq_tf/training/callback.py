"""`BMPQCallback`: reads the bit gradients, asks the solver, assigns the widths, while `fit` runs."""

import warnings
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf.allocation.budget import FLOAT_BITS, Budget, InfeasibleBudgetError
from bmpq_tf.allocation.sensitivity import OBJECTIVES, Measurement, told_sensitivity
from bmpq_tf.allocation.solver import AllocationError, Solution
from bmpq_tf.model.kernels import KernelState, allocation_history, compression, measurement, model_kernels, total_bits, within
from bmpq_tf.training import distribution
from bmpq_tf.training.allocator import Sensitivity, assign, costs_by, open_kernels, solve
from bmpq_tf.training.schedule import Schedule


class BMPQCallback(keras.callbacks.Callback):
    """Re-allocates the widths of a quantized model under a hard budget while it trains (after BMPQ, DATE 2022).

    The schedule: `warmup_epochs` at the widest candidates; then, every `interval_epochs`, read the
    sensitivities, solve, assign, reset; the last `settle_epochs` keep the assignment, so that the weights were trained at their final widths.

    Everything that a decision needs lies in the model's variables and file, so `BackupAndRestore`, `ModelCheckpoint` and
    `.keras` files resume with the same widths, sensitivities, schedule and history. Decisions fall in `on_epoch_begin`, so the
    order among callbacks does not matter for them. Each epoch's logs get `bmpq_compression`, `bmpq_bits` (average per weight)
    and `bmpq_within_budget` (1 or 0); callbacks that come after this one see them, Keras's own `History` always does. Choose
    the best model only among epochs within the budget: `EarlyStopping(restore_best_weights=True)` wants
    `start_from_epoch=warmup_epochs`, or it may bring the widths of the warm-up back, after this callback's last look.

    In a training loop of your own, `keras.callbacks.CallbackList` drives it (`examples/own_loop.py`). `model.optimizer` is taken for the
    one that trains the kernels: its loss scale is divided out of the sensitivities, its slots start anew with a learned scale. Under
    `MultiWorkerMirroredStrategy` every worker has its callback and the chief decides (`bmpq_tf.prepare_for_workers`).

    Args:
        budget: `"10x"`, `"2.5 bits"`, `"120 kB"`, a number (compression) or a `bmpq_tf.Budget`.
        warmup_epochs: epochs before the first decision, at least 1.
        interval_epochs: epochs between decisions, at least 1.
        settle_epochs: epochs at the end without a decision, at least 1; by default a third of the epochs.
        sensitivity: what the widths go by: `"first_order"`, `"squared"` or `"joint"` (for which the model must track that), readings of
            the bit gradients (`bmpq_tf.estimate_costs`); or a callable. It takes a list of `bmpq_tf.Measurement`, one for each kernel that
            may change, and returns by path the cost of each of the kernel's candidates. Where it has an attribute
            `needs_gradients` that is false, a decision needs none to have arrived.
        min_improvement: share of the present widths' estimated loss increase that other widths must save to replace them, 0 to 1.
            A change of width starts its scales anew, which noise in the sensitivities alone should not pay for.
        time_limit: seconds for the solver; `math.inf` for as many as it takes.
        verbose: 1 prints a line for each allocation, 0 nothing.

    Attributes:
        history: list of every allocation so far: `epoch`, `status`, `budget`, and by kernel `bits`, `sensitivity` and `enbg`.

    Raises:
        ValueError: an argument is not understood; from `fit`, before any training: the model has no quantized layers or
            does not track sensitivities, has no optimizer, or `fit` is too short.
        InfeasibleBudgetError: likewise: the candidates cannot meet the budget.
    """

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
        if not isinstance(min_improvement, (int, float)) or isinstance(min_improvement, bool) or not 0.0 <= min_improvement < 1.0:
            raise ValueError(f"min_improvement is a share, from 0 to below 1. Received: min_improvement={min_improvement!r}.")
        if not isinstance(time_limit, (int, float)) or isinstance(time_limit, bool) or not time_limit >= 0.0:
            raise ValueError(f"time_limit is a number of seconds. Received: time_limit={time_limit!r}. Give math.inf for none.")
        self.sensitivity = sensitivity
        self.min_improvement = min_improvement
        self.time_limit = time_limit
        self.verbose = verbose

    @property
    def history(self) -> list[dict]:
        """Every allocation that the model has been through, oldest first."""
        return allocation_history(self.model)

    def check(self, model: keras.Model, epochs: int) -> None:
        """Raises, as `fit` would before training, if this model cannot be trained for so many epochs under the budget."""
        if not model.built:
            raise ValueError(f"Model '{model.name}' is not built, so its kernels have no size yet. Call it on a batch or build() it first.")
        states = model_kernels(model)
        quantized = [state for state in states if state.quantizer]
        if not quantized:
            raise ValueError(
                f"Model '{model.name}' has no quantized layers, so there are no widths to allocate. "
                "Make it with bmpq_tf.quantize_model(model), or build it from bmpq_tf.layers."
            )
        untracked = [state.kernel.path for state in quantized if state.is_open and not state.quantizer.config.track_sensitivity]
        if untracked and self._needs_gradients:
            raise ValueError(f"These kernels do not track sensitivities: {untracked}. Quantize the model with track_sensitivity=True.")
        coarse = [state.kernel.path for state in quantized if state.quantizer.config.track_sensitivity != "joint"]
        if coarse and self._objective == "joint":
            raise ValueError(f'These kernels do not track single weights: {coarse}. Quantize the model with track_sensitivity="joint".')
        self.schedule.check(epochs)
        self.budget.check([state.kernel for state in open_kernels(states)], self._said)

    def on_train_begin(self, logs=None):
        self.check(self.model, self.params["epochs"])
        self._has_trained = False
        self._first_epoch: int | None = None
        self._states = model_kernels(self.model)
        # What earlier fits saw: of a layer that was frozen then, less than of others.
        self._uses_before = {state.kernel.path: state.quantizer.accumulated().uses_seen for state in self._states if state.quantizer}
        self._divide_out_loss_scale()

    def on_epoch_begin(self, epoch, logs=None):
        if self._first_epoch is None:
            self._first_epoch = epoch
            self._check_room()
        if self._is_due(epoch):
            self._decide(epoch)

    def on_epoch_end(self, epoch, logs=None):
        self._has_trained = True
        if logs is not None:
            ratio = compression(self._states)
            logs["bmpq_compression"] = ratio
            logs["bmpq_bits"] = FLOAT_BITS / ratio
            logs["bmpq_within_budget"] = float(within(self.budget, self._states))

    def on_train_end(self, logs=None):
        if not within(self.budget, self._states):
            warnings.warn(
                f"Training ended over the budget of {self.budget}: the model is {compression(self._states):.2f}x smaller than float32. "
                "No allocation was possible before settling began (see the messages above), or another width was restored.",
                stacklevel=2,
            )

    def _divide_out_loss_scale(self) -> None:
        """Tells the quantizers what the optimizer multiplies the loss by; a step traced without that is traced anew."""
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is None:
            raise ValueError(
                f"Model '{self.model.name}' has no optimizer, whose loss scale and slots belong to the widths. "
                "Call model.compile(optimizer) first, in a loop of your own too, and take model.optimizer there."
            )
        one = tf.ones(())
        is_scaled = optimizer.scale_loss(one) is not one
        stale = [state.quantizer.follow_loss_scale(optimizer if is_scaled else None) for state in self._states if state.quantizer]
        if any(stale) and self.model.train_function is not None:
            self.model.make_train_function(force=True)

    def _check_room(self) -> None:
        """Raises ValueError if a fit that begins in the middle, with a model that was never trained under a callback, never decides."""
        epochs = self.params["epochs"]
        last = self.schedule.last_decision(epochs)
        first = self._first_epoch + (self._needs_gradients and not self._seen())
        if self.history or any(self.schedule.decides(epoch, epochs) for epoch in range(first, last + 1)):
            return
        raise ValueError(
            f"fit begins at epoch {self._first_epoch + 1} of {self.params['epochs']} and settles after epoch {last}: no decision lies between, and "
            f"none was made before. Received: initial_epoch={self._first_epoch}, epochs={self.params['epochs']}. Epochs of another model do not "
            "count: leave initial_epoch out, or give a larger epochs."
        )

    def _is_due(self, epoch: int) -> bool:
        if not self.schedule.decides(epoch, self.params["epochs"]):
            return False
        seen = self._seen()
        if not self._has_trained and not self.history and not seen and self._needs_gradients:
            return False
        # A checkpoint from the middle of an epoch holds that epoch's decision already.
        decided = self.history and self.history[-1]["epoch"] == epoch
        fresh = seen < (self.params.get("steps") or np.inf) * self.model.distribute_strategy.num_replicas_in_sync
        return not (decided and fresh and not self._has_trained)

    def _seen(self) -> float:
        """How many mini-batches were seen, every replica's; not by kernels that no gradient reaches."""
        opened = [state for state in self._states if state.is_open]
        return min((seen / state.calls for state, seen in zip(opened, self._uses(opened)[1], strict=True) if seen), default=0.0)

    @property
    def _needs_gradients(self) -> bool:
        return getattr(self.sensitivity, "needs_gradients", True)

    @property
    def _objective(self) -> str:
        """What the figures of the history are told by; of a callable of the user's, first order unless it says."""
        return self.sensitivity if self.sensitivity in OBJECTIVES else getattr(self.sensitivity, "objective", "first_order")

    def _decide(self, epoch: int) -> None:
        opened = [state for state in self._states if state.is_open]
        finite, seen = self._uses(opened)
        if any(good < 0.5 * uses for good, uses in zip(finite, seen, strict=True)):
            self._say(f"epoch {epoch + 1}: fewer than half of the gradients were finite; the widths stay")
            self._reset()
            return
        unreached = {s.kernel.path for s, uses in zip(opened, seen, strict=True) if not uses} if self._needs_gradients else set()
        states = open_kernels(self._states, unreached)
        try:
            self.budget.check([state.kernel for state in states], self._said)
        except InfeasibleBudgetError as error:
            self._say(f"epoch {epoch + 1}: no gradients reached {', '.join(sorted(unreached))}; the widths stay. {error}")
            return
        try:
            solution, measured = self._solve(states, self._uses_per_step())
        except AllocationError as error:
            # The training so far is worth more than this decision; over budget at the end is told there.
            warnings.warn(f"No allocation before epoch {epoch + 1}; the widths stay. {error}", stacklevel=2)
            return
        changed = assign(self._states, solution.bits, self.model.optimizer)
        self._record(epoch, solution, measured)
        self._reset()
        self._say(self._line(epoch, solution, changed, unreached))

    def _uses_per_step(self) -> dict[str, float]:
        """How often a mini-batch goes through each kernel, by what this fit saw; where it saw nothing yet, by all since the last decision."""
        seen = {state.kernel.path: state.quantizer.accumulated().uses_seen for state in self._states if state.quantizer}
        new = {path: uses - self._uses_before.get(path, 0.0) for path, uses in seen.items()}
        told = new if any(uses > 0 for uses in new.values()) else seen
        steps = min((told[s.kernel.path] for s in self._states if s.is_open and told[s.kernel.path] > 0), default=1.0)
        return {path: uses / steps if uses > 0 else 1.0 for path, uses in told.items()}

    def _solve(self, states: Sequence[KernelState], per_step: Mapping[str, float]) -> tuple[Solution, dict[str, Measurement]]:
        """Returns the assignment, and what was measured of every quantized kernel that gradients reached."""
        sums = [(s, s.quantizer.accumulated()) for s in self._states if s.quantizer]
        measured = {s.kernel.path: measurement(s, per_step[s.kernel.path]) for s, known in sums if known.uses_finite > 0}
        choosable = [measured.get(s.kernel.path) or measurement(s) for s in states if len(s.kernel.candidates) > 1]
        costs = self._costs_of(choosable)
        found = solve(states, self.budget, costs, self.model.distribute_strategy, self.min_improvement, self.time_limit)
        return found, measured

    def _record(self, epoch: int, solution: Solution, measured: dict[str, Measurement]) -> None:
        for state in self._states:
            if state.quantizer:
                kernel = measured.get(state.kernel.path)
                record = {
                    "epoch": epoch,
                    "status": solution.status,
                    "budget": self.budget.to_dict(),
                    "bits": solution.bits[state.kernel.path],
                    "sensitivity": told_sensitivity(kernel, self._objective) if kernel else None,
                    "enbg": kernel.enbg if kernel else None,
                }
                state.quantizer.history = (*state.quantizer.history, record)

    def _uses(self, states: Sequence[KernelState]) -> tuple[list[float], list[float]]:
        sums = [state.quantizer.accumulated() for state in states]
        return [known.uses_finite for known in sums], [known.uses_seen for known in sums]

    def _reset(self) -> None:
        self._uses_before = {}
        for state in self._states:
            if state.quantizer:
                state.quantizer.reset_accumulators()

    def _line(self, epoch: int, solution: Solution, changed: Sequence[str], unreached: set[str]) -> str:
        chosen = [bits for path, bits in solution.bits.items() if bits != FLOAT_BITS]
        widths = ", ".join(f"{chosen.count(bits)} at {bits}" for bits in sorted(set(chosen)))
        frozen = [s.kernel.path for s in self._states if s.quantizer and not s.variable.trainable]
        kept = f"; without gradients, so kept: {', '.join([*frozen, *sorted(unreached)])}" if frozen or unreached else ""
        size = f"{compression(self._states):.2f}x, {total_bits(self._states) / 8000:.1f} kB"
        status = f"kept, as the best saves at most {solution.gap:.1%}" if solution.status == "kept" else solution.status
        return f"epoch {epoch + 1}: {status} in {solution.seconds:.2f} s, {size}; {widths} bits; {len(changed)} changed{kept}"

    def _say(self, line: str) -> None:
        if self.verbose and distribution.is_chief(self.model.distribute_strategy):
            print(f"BMPQ {line}", flush=True)
