"""`BMPQCallback`: reads the bit gradients, asks the solver, assigns the widths, while `fit` runs."""

import dataclasses
import itertools
import warnings
from collections.abc import Collection, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf.allocation import sensitivity as sensitivities
from bmpq_tf.allocation.budget import FLOAT_BITS, Budget, InfeasibleBudgetError
from bmpq_tf.allocation.sensitivity import Measurement
from bmpq_tf.allocation.solver import AllocationError, Solution, allocate
from bmpq_tf.model.kernels import KernelState, allocation_history, compression, measurement, model_kernels, total_bits, within
from bmpq_tf.training import distribution
from bmpq_tf.training.optimizer_state import reset_slots

INITIAL_WIDTHS = ("widest", "allocated")


class BMPQCallback(keras.callbacks.Callback):
    """Re-allocates the widths of a quantized model under a hard budget while it trains (after BMPQ, DATE 2022).

    The schedule: `warmup_epochs` at the widest candidates (or as `initial_widths` says); then, every `interval_epochs`, read the
    sensitivities, solve, assign, reset; the last `settle_epochs` keep the assignment, so that the weights were trained at their final widths.

    Everything that a decision needs lies in the model's variables and file, so `BackupAndRestore`, `ModelCheckpoint` and
    `.keras` files resume with the same widths, sensitivities, schedule and history. Decisions fall in `on_epoch_begin`, so the
    order among callbacks does not matter for them. Each epoch's logs get `bmpq_compression`, `bmpq_bits` (average per weight)
    and `bmpq_within_budget` (1 or 0); callbacks that come after this one see them, Keras's own `History` always does. Choose
    the best model only among epochs within the budget: `EarlyStopping(restore_best_weights=True)` wants
    `start_from_epoch=warmup_epochs`, or it may bring the widths of the warm-up back, after this callback's last look.

    In a training loop of your own, `keras.callbacks.CallbackList` drives it (`examples/own_loop.py`). `model.optimizer` is taken for the
    one that trains the kernels: its loss scale is divided out of the sensitivities, its slots start anew with a learned scale. Under
    `MultiWorkerMirroredStrategy` every worker has its callback and the chief decides (`bmpq_tf.training.distribution`).

    Args:
        budget: `"10x"`, `"2.5 bits"`, `"120 kB"`, a number (compression) or a `bmpq_tf.Budget`.
        warmup_epochs: epochs before the first decision, at least 1.
        interval_epochs: epochs between decisions, at least 1.
        settle_epochs: epochs at the end without a decision, at least 1; by default a third of the epochs.
        min_improvement: share of the present widths' estimated loss increase that other widths must save to replace them, 0 to 1.
            A change of width starts its scales anew, which noise in the sensitivities alone should not pay for.
        objective: `"first_order"`, `"squared"`, or `"joint"`, for which the model must track that (`bmpq_tf.allocation.sensitivity.costs`).
        method: `"bmpq"`, or a control: `"error"`, `"random"`, `"reverse"` (`bmpq_tf.allocation.sensitivity.substituted`).
        seed: of the random control.
        initial_widths: what the warm-up runs at: `"widest"` leaves the widths as they are, the widest candidates; `"allocated"` gives a
            model that was neither trained nor allocated before those of method `"error"` under the budget. They are no part of `history`.
        time_limit: seconds for the solver; `math.inf` for as many as it takes.
        verbose: 1 prints a line for each allocation, 0 nothing.

    Attributes:
        history: list of every allocation so far: `epoch`, `status`, `budget`, and by kernel `bits`, `sensitivity` and `enbg`.

    Raises:
        ValueError: an argument is not understood; from `fit`, before any training: the model has no quantized layers or
            does not track sensitivities, has no optimizer, or `fit` is too short.
        InfeasibleBudgetError, AllocationError: likewise: the candidates cannot meet the budget; no initial widths were found in time.
    """

    def __init__(
        self,
        budget: "str | float | Budget",
        *,
        warmup_epochs: int = 1,
        interval_epochs: int = 1,
        settle_epochs: int | None = None,
        min_improvement: float = 0.0,
        objective: str = "first_order",
        method: str = "bmpq",
        seed: int = 0,
        initial_widths: str = "widest",
        time_limit: float = 60.0,
        verbose: int = 1,
    ):
        super().__init__()
        self.budget = Budget.parse(budget)
        self._said = budget
        for name, value in (("warmup_epochs", warmup_epochs), ("interval_epochs", interval_epochs), ("settle_epochs", settle_epochs)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} must be a whole number of epochs, 1 or more. Received: {name}={value!r}.")
        if not isinstance(min_improvement, (int, float)) or isinstance(min_improvement, bool) or not 0.0 <= min_improvement < 1.0:
            raise ValueError(f"min_improvement is a share, from 0 to below 1. Received: min_improvement={min_improvement!r}.")
        if not isinstance(time_limit, (int, float)) or isinstance(time_limit, bool) or not time_limit >= 0.0:
            raise ValueError(f"time_limit is a number of seconds. Received: time_limit={time_limit!r}. Give math.inf for none.")
        choices = {"objective": (objective, sensitivities.OBJECTIVES), "method": (method, sensitivities.METHODS)}
        for name, (value, known) in {**choices, "initial_widths": (initial_widths, INITIAL_WIDTHS)}.items():
            if value not in known:
                raise ValueError(f"Unknown {name}. Received: {name}={value!r}. Known: {', '.join(known)}.")
        self.warmup_epochs = warmup_epochs
        self.interval_epochs = interval_epochs
        self.settle_epochs = settle_epochs
        self.min_improvement = min_improvement
        self.objective = objective
        self.method = method
        self.seed = seed
        self.initial_widths = initial_widths
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
        if untracked and not self._decides_unseen():
            raise ValueError(f"These kernels do not track sensitivities: {untracked}. Quantize the model with track_sensitivity=True.")
        coarse = [state.kernel.path for state in quantized if state.quantizer.config.track_sensitivity != "joint"]
        if coarse and self.objective == "joint":
            raise ValueError(f'These kernels do not track single weights: {coarse}. Quantize the model with track_sensitivity="joint".')
        self.check_epochs(epochs)
        self.budget.check([state.kernel for state in _with_open_candidates(states)], self._said)

    def check_epochs(self, epochs: int) -> None:
        """Raises ValueError if so many epochs have no room for a decision, whatever the model."""
        settle = self._settle(epochs)
        if self.warmup_epochs + settle > epochs:
            # By default a longer fit settles for longer.
            enough = next(number for number in itertools.count(epochs + 1) if self.warmup_epochs + self._settle(number) <= number)
            raise ValueError(
                f"fit is too short for a warm-up of {self.warmup_epochs}, one decision and {settle} epochs of settling: "
                f"it needs at least {enough} epochs. Received: epochs={epochs}. "
                "Train longer, or give BMPQCallback smaller warmup_epochs or settle_epochs."
            )

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
        if self.initial_widths == "allocated" and not self.history and not keras.ops.convert_to_numpy(self.model.optimizer.iterations):
            self._start_allocated()
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
        last = self.params["epochs"] - self._settle(self.params["epochs"])
        first = self._first_epoch + (not self._decides_unseen() and not self._seen())
        if self.history or any(self._is_scheduled(epoch) for epoch in range(first, last + 1)):
            return
        raise ValueError(
            f"fit begins at epoch {self._first_epoch + 1} of {self.params['epochs']} and settles after epoch {last}: no decision lies between, and "
            f"none was made before. Received: initial_epoch={self._first_epoch}, epochs={self.params['epochs']}. Epochs of another model do not "
            "count: leave initial_epoch out, or give a larger epochs."
        )

    def _settle(self, epochs: int) -> int:
        return self.settle_epochs if self.settle_epochs is not None else max(1, epochs // 3)

    def _is_scheduled(self, epoch: int) -> bool:
        last = self.params["epochs"] - self._settle(self.params["epochs"])
        return self.warmup_epochs <= epoch <= last and (epoch - self.warmup_epochs) % self.interval_epochs == 0

    def _is_due(self, epoch: int) -> bool:
        if not self._is_scheduled(epoch):
            return False
        seen = self._seen()
        if not self._has_trained and not self.history and not seen and not self._decides_unseen():
            return False
        # A checkpoint from the middle of an epoch holds that epoch's decision already.
        decided = self.history and self.history[-1]["epoch"] == epoch
        fresh = seen < (self.params.get("steps") or np.inf) * self.model.distribute_strategy.num_replicas_in_sync
        return not (decided and fresh and not self._has_trained)

    def _seen(self) -> float:
        """How many mini-batches were seen, every replica's; not by kernels that no gradient reaches."""
        opened = [state for state in self._states if state.is_open]
        return min((seen / state.calls for state, seen in zip(opened, self._uses(opened)[1], strict=True) if seen), default=0.0)

    def _decides_unseen(self) -> bool:
        return self.method in ("error", "random")

    def _start_allocated(self) -> None:
        states = _with_open_candidates(self._states)
        choosable = [measurement(state) for state in states if len(state.kernel.candidates) > 1]
        solution = self._allocated(states, sensitivities.substituted(choosable, "error"))
        self._say(self._line(0, solution, self._assign(solution), set()) + "; before any training, by error")

    def _decide(self, epoch: int) -> None:
        opened = [state for state in self._states if state.is_open]
        finite, seen = self._uses(opened)
        if any(good < 0.5 * uses for good, uses in zip(finite, seen, strict=True)):
            self._say(f"epoch {epoch + 1}: fewer than half of the gradients were finite; the widths stay")
            self._reset()
            return
        unreached = set() if self._decides_unseen() else {s.kernel.path for s, uses in zip(opened, seen, strict=True) if not uses}
        states = _with_open_candidates(self._states, unreached)
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
        changed = self._assign(solution)
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
        return self._allocated(states, self._factors(choosable)), measured

    def _allocated(self, states: Sequence[KernelState], measured: Sequence[Measurement]) -> Solution:
        """Solves for these measurements; a kernel without one costs nothing at any width."""
        factors = {m.path: m for m in measured}
        kernels = [state.kernel for state in states]

        def solve() -> Solution:
            costs = [
                sensitivities.costs(factors[kernel.path], kernel.candidates, self.objective)
                if kernel.path in factors
                else [0.0] * len(kernel.candidates)
                for kernel in kernels
            ]
            found = allocate(kernels, costs, self.budget.limits(kernels), time_limit=self.time_limit)
            return self._worth_changing(states, costs, found)

        return distribution.solved_by_chief(self.model.distribute_strategy, kernels, solve)

    def _worth_changing(self, states: Sequence[KernelState], costs: list[list[float]], found: Solution) -> Solution:
        """Returns the present widths where they meet the budget and the ones found save less than `min_improvement` of their cost."""
        if not within(self.budget, states) or any(state.bits not in state.kernel.candidates for state in states):
            return found
        present = float(sum(row[state.kernel.candidates.index(state.bits)] for state, row in zip(states, costs, strict=True)))
        bits = {state.kernel.path: state.bits for state in states}
        if found.bits == bits or found.objective <= (1.0 - self.min_improvement) * present:
            return found
        bound = found.objective * (1.0 - found.gap) if np.isfinite(found.gap) else 0.0
        return dataclasses.replace(found, bits=bits, status="kept", objective=present, gap=1.0 - bound / present if present else 0.0)

    def _factors(self, measured: list[Measurement]) -> list[Measurement]:
        """The measurements with the factors that decide; what a comparison with other sensitivities overrides."""
        return sensitivities.substituted(measured, self.method, self.seed)

    def _assign(self, solution: Solution) -> list[str]:
        changed = []
        for state in self._states:
            if state.quantizer and state.quantizer.set_width(solution.bits[state.kernel.path], state.variable):
                changed.append(state.kernel.path)
                if state.quantizer.config.scale == "learned":
                    reset_slots(self.model.optimizer, state.quantizer.log_gain)
        return changed

    def _record(self, epoch: int, solution: Solution, measured: dict[str, Measurement]) -> None:
        for state in self._states:
            if state.quantizer:
                kernel = measured.get(state.kernel.path)
                record = {
                    "epoch": epoch,
                    "status": solution.status,
                    "budget": self.budget.to_dict(),
                    "bits": solution.bits[state.kernel.path],
                    "sensitivity": sensitivities.sensitivity(kernel, self.objective) if kernel else None,
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


def _with_open_candidates(states: Sequence[KernelState], unreached: Collection[str] = ()) -> list[KernelState]:
    """The kernels with the candidates that are really open: one that is frozen, or that no gradient reached, keeps its width."""

    def fixed(state: KernelState) -> KernelState:
        kept = dataclasses.replace(state.kernel, candidates=(state.bits,), kept=len(state.kernel.candidates) > 1)
        return dataclasses.replace(state, kernel=kept)

    def is_open(state: KernelState) -> bool:
        return state.is_open and state.kernel.path not in unreached

    return [state if state.quantizer is None or is_open(state) else fixed(state) for state in states]
