"""The program as arrays: what each choice costs and uses, without the choices that no best
assignment takes.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from bmpq_tf.allocation.kernel import Kernel, Limit


@dataclasses.dataclass(frozen=True)
class Choices:
    """One choice from each row, of least cost, using no more than the room of each limit.

    Attributes:
        costs: float64 `(kernels, widths)`, from 0 for a kernel's cheapest candidate to 1 for the
            largest difference in any kernel; infinite where there is nothing to choose.
        uses: float64 whole numbers `(limits, kernels, widths)`, beyond the least that each kernel
            can use; in units of the greatest common divisor. Only limits that can be exceeded are
            here.
        room: float64 whole numbers `(limits,)`: what a limit leaves beyond those least uses;
            negative if it cannot be met.
    """

    costs: np.ndarray
    uses: np.ndarray
    room: np.ndarray

    def cost(self, picked: np.ndarray) -> float:
        """Returns what an assignment (one position a kernel) costs."""
        return float(np.take_along_axis(self.costs, picked[:, None], 1).sum())

    def used(self, picked: np.ndarray) -> np.ndarray:
        """Returns what an assignment uses of each limit's room."""
        return np.take_along_axis(self.uses, picked[None, :, None], 2).sum((1, 2))

    def fits(self, picked: np.ndarray) -> bool:
        """Whether an assignment stays within every limit."""
        return bool((self.used(picked) <= self.room).all())


def choices(
    kernels: Sequence[Kernel], costs: Sequence[Sequence[float]], limits: Sequence[Limit]
) -> Choices:
    """Builds the arrays and drops every choice that cannot fit, and every one that another of the
    same kernel beats or equals.
    """
    count, widths = len(kernels), max((len(kernel.candidates) for kernel in kernels), default=1)
    given = np.zeros((count, widths), bool)
    cost = np.full((count, widths), np.inf)
    for number, row in enumerate(costs):
        given[number, : len(row)] = True
        cost[number, : len(row)] = row
    # What all candidates of a kernel share decides nothing.
    cost -= cost.min(1, keepdims=True)
    cost /= cost[given].max(initial=0.0) or 1.0
    rows = [_row(limit, given) for limit in limits]
    uses = np.array([row for row, _ in rows]).reshape(len(rows), count, widths)
    room = np.array([left for _, left in rows])
    kept = given & (uses <= room[:, None, None]).all(0)
    kept &= ~_beaten(np.where(kept, cost, np.inf), uses)
    binding = np.where(kept, uses, 0.0).max(2, initial=0.0).sum(1) > room
    return Choices(np.where(kept, cost, np.inf), np.where(kept, uses, 0.0)[binding], room[binding])


def _row(limit: Limit, given: np.ndarray) -> tuple[np.ndarray, float]:
    """A limit's uses beyond the least, and its room, divided by their greatest common divisor.

    Whole numbers until then.
    """
    values = np.zeros(given.shape, np.int64)
    for number, row in enumerate(limit.coefficients):
        values[number, : len(row)] = row
    least = np.where(given, values, np.iinfo(np.int64).max).min(1, keepdims=True)
    values = np.where(given, values - least, 0)
    unit = int(np.gcd.reduce(values, axis=None)) or 1
    return (values // unit).astype(float), float((limit.bound - int(least.sum())) // unit)


def _beaten(costs: np.ndarray, uses: np.ndarray) -> np.ndarray:
    """Marks choices for which another of the same kernel costs and uses no more.

    Of equal ones the first stays.
    """
    beaten = np.zeros(costs.shape, bool)
    for mine in range(costs.shape[1]):
        for other in range(costs.shape[1]):
            no_more = (costs[:, other] <= costs[:, mine]) & (
                uses[:, :, other] <= uses[:, :, mine]
            ).all(0)
            less = (costs[:, other] < costs[:, mine]) | (uses[:, :, other] < uses[:, :, mine]).any(
                0
            )
            if mine != other:
                beaten[:, mine] |= no_more & (less | (other < mine))
    return beaten
