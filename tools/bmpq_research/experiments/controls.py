"""The controls that bit gradients must beat.

The same program, budget and schedule, with other factors (METHOD.md, "Controls").
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from bmpq_tf.allocation.sensitivity import OBJECTIVES, Measurement, estimate_costs

METHODS = ("bmpq", "error", "random", "reverse")


class Control:
    """A sensitivity for `BMPQCallback`: bit gradients, or what stands for them in a control.

    Args:
        method: one of `METHODS`.
        objective: as `bmpq_tf.estimate_costs` takes it.
        seed: of the random draw.

    Attributes:
        needs_gradients: whether a decision must wait until gradients were seen.
        objective: what the figures of the history are told by.
    """

    def __init__(self, method: str, objective: str = "first_order", seed: int = 0):
        for name, value, known in (
            ("method", method, METHODS),
            ("objective", objective, OBJECTIVES),
        ):
            if value not in known:
                raise ValueError(
                    f"Unknown {name}. Received: {name}={value!r}. Known: {', '.join(known)}."
                )
        self.method, self.objective, self.seed = method, objective, seed
        self.needs_gradients = method in ("bmpq", "reverse")

    def __call__(self, measured: Sequence[Measurement]) -> dict[str, list[float]]:
        return {
            one.path: estimate_costs(one, one.candidates, self.objective)
            for one in substituted(measured, self.method, self.seed)
        }


def substituted(measured: Sequence[Measurement], method: str, seed: int = 0) -> list[Measurement]:
    """Replaces the gradient factors by those of a control experiment (METHOD.md, "Controls").

    Args:
        measured: the kernels that are open to the allocation.
        method: `"bmpq"` leaves the factors; `"error"` sets all to 1, so that the quantization error
            alone decides; `"random"` draws one per kernel, log-uniform over two decades, fixed by
            seed and path; `"reverse"` inverts each kernel's mean.
        seed: of the random draw.
    """
    if method == "bmpq":
        return list(measured)

    def factor(kernel: Measurement, mean: float) -> float:
        if method == "error":
            return 1.0
        if method == "reverse":
            return 1.0 / max(mean, np.finfo(np.float32).tiny)
        digest = hashlib.sha256(f"{seed} {kernel.path}".encode()).digest()
        return float(10.0 ** np.random.default_rng(list(digest)).uniform(-1.0, 1.0))

    def replaced(kernel: Measurement) -> Measurement:
        first = np.full_like(kernel.gradient_abs, factor(kernel, float(kernel.gradient_abs.mean())))
        square = np.full_like(
            kernel.gradient_square, factor(kernel, float(kernel.gradient_square.mean()))
        )
        return dataclasses.replace(
            kernel, gradient_abs=first, gradient_square=square, weight_gradient_abs=first
        )

    return [replaced(kernel) for kernel in measured]
