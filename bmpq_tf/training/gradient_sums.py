"""What training has seen of each kernel since the last decision, from the model's variables."""

from collections.abc import Sequence

import numpy as np

from bmpq_tf.allocation.sensitivity import Measurement
from bmpq_tf.model.kernels import KernelState, measurement, read


class GradientSums:
    """The sums of a model's kernels, as means a mini-batch.

    Args:
        states: every kernel of the model.
    """

    def __init__(self, states: Sequence[KernelState]):
        self._quantized = [state for state in states if state.quantizer]
        self.opened = [state for state in states if state.is_open]
        # What earlier fits saw: of a layer that was frozen then, less than of others.
        self._before = self._uses_seen()

    def are_finite(self, gradients: bool = True) -> bool:
        """Whether all kernels are, and of each open one at least half of the gradients, where these
        are asked for.
        """
        sums = [state.quantized.accumulated() for state in self.opened if gradients]
        kernels = [np.isfinite(read(state.variable)).all() for state in self._quantized]
        return all(kernels) and all(known.uses_finite >= 0.5 * known.uses_seen for known in sums)

    def _seen(self) -> list[tuple[KernelState, float]]:
        """Each open kernel, and how often a gradient of it came."""
        return [(state, state.quantized.accumulated().uses_seen) for state in self.opened]

    def batches_seen(self) -> float:
        """Returns how many mini-batches were seen, every replica's.

        Kernels that no gradient reaches do not count.
        """
        return min((uses / state.calls for state, uses in self._seen() if uses), default=0.0)

    def unreached(self) -> set[str]:
        """Returns the paths of the open kernels that no gradient reached."""
        return {state.kernel.path for state, uses in self._seen() if not uses}

    def measured(self) -> dict[str, Measurement]:
        """Returns what was measured of each kernel that gradients reached, by path."""
        per_step = self._uses_per_step()
        sums = [(state, state.quantized.accumulated()) for state in self._quantized]
        return {
            state.kernel.path: measurement(state, per_step[state.kernel.path])
            for state, known in sums
            if known.uses_finite > 0
        }

    def reset(self) -> None:
        """Forgets the bit gradients so far, as after every allocation."""
        self._before = {}
        for state in self._quantized:
            state.quantized.reset_accumulators()

    def _uses_seen(self) -> dict[str, float]:
        return {
            state.kernel.path: state.quantized.accumulated().uses_seen for state in self._quantized
        }

    def _uses_per_step(self) -> dict[str, float]:
        """How often a mini-batch goes through each kernel, by what this fit saw.

        Where it saw nothing yet, by all since the last decision.
        """
        seen = self._uses_seen()
        new = {path: uses - self._before.get(path, 0.0) for path, uses in seen.items()}
        told = new if any(uses > 0 for uses in new.values()) else seen
        per_call = [told[state.kernel.path] / state.calls for state in self.opened]
        steps = min((uses for uses in per_call if uses > 0), default=1.0)
        return {path: uses / steps if uses > 0 else 1.0 for path, uses in told.items()}
