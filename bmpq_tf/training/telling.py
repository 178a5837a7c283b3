"""What a run tells while it trains: lines on the screen, and event files for TensorBoard."""

from collections.abc import Collection, Hashable, Sequence

import keras

from bmpq_tf.allocation.solver import Solution
from bmpq_tf.model.kernels import KernelState
from bmpq_tf.model.summary import AUTO, told_ends
from bmpq_tf.training import decision_record, distribution, event_files

_AGAIN = "; told again when that changes"


class Telling:
    """Tells of one `fit`, once of what repeats itself; of several workers the chief does.

    Args:
        fitted: the model that is fitted.
        part: the quantized one, the same or inside.
        states: its kernels.
        verbose: 0 prints nothing.
        log_dir: the folder that TensorBoard reads; `None` for no event files.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(
        self,
        fitted: keras.Model,
        part: keras.Model,
        states: Sequence[KernelState],
        verbose: int,
        log_dir: str | None,
    ):
        is_chief = distribution.is_chief(fitted.distribute_strategy)
        self._part, self._states = part, states
        self._prints = bool(verbose) and is_chief
        self._last: Hashable = None
        self._is_repeated = False
        # Each of several parts, which have a callback each, is a run of its own.
        run = event_files.RUN if part is fitted else f"{event_files.RUN}_{part.name}"
        self._events = event_files.EventFiles(log_dir, run) if log_dir and is_chief else None
        if part is not fitted:
            self._say(f"the budget is of '{part.name}' alone, in '{fitted.name}'")
        if ends := told_ends([state.kernel for state in states]):
            self._say(f"{AUTO}: {'; '.join(ends.values())}")
        if self._events and not event_files.has_pictures():
            self._say(
                "log_dir gets no pictures, because matplotlib is not installed: "
                f"{event_files.INSTALL}"
            )

    def decided(
        self, epoch: int, solution: Solution, changed: Sequence[str], unreached: Collection[str]
    ) -> None:
        """A decision fell before an epoch; `changed` and `unreached` are paths of kernels."""
        if self._events:
            self._events.decided(epoch, self._part)
        frozen = [s.kernel.path for s in self._states if s.quantizer and not s.variable.trainable]
        kept = (*frozen, *sorted(unreached))
        # One that was not finished in time is worth a line of its own.
        late = "" if solution.status in ("optimal", "kept") else solution.status
        self._once(
            epoch,
            (*solution.bits.items(), *kept, late),
            decision_record.line(self._states, solution, changed, kept),
            f"{solution.status} in {solution.seconds:.2f} s, the same widths{_AGAIN}",
        )

    def stayed(self, epoch: int, why: str) -> None:
        """No decision could be made before an epoch."""
        self._once(epoch, why, why, f"the same as before{_AGAIN}")

    def epoch_ended(self, epoch: int) -> None:
        if self._events:
            self._events.epoch_ended(epoch, self._states)

    def ended(self) -> None:
        if self._events:
            self._events.close()

    def _once(self, epoch: int, what: Hashable, line: str, again: str) -> None:
        is_new = what != self._last
        if is_new or not self._is_repeated:
            self._say(f"epoch {epoch + 1}: {line if is_new else again}")
        self._last, self._is_repeated = what, not is_new

    def _say(self, line: str) -> None:
        if self._prints:
            print(f"BMPQ {line}", flush=True)
