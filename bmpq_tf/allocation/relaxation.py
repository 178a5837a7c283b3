"""The Lagrangian relaxation: a lower bound, and a price for every choice by which it can be ruled
out.

With a multiplier `u >= 0` for each limit, `L(u) = sum_l min_b (cost[l, b] + u uses[l, b]) - u room`
is no more than any assignment that fits; the best multipliers give the bound of the linear
relaxation. They are found with Kelley's cutting planes (1960).
"""

import dataclasses
from typing import Any

import mip
import numpy as np

from bmpq_tf.allocation.choices import Choices

_CUTS = 100
_EXACT = 1e-12
_xsum: Any = mip.xsum


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """What the relaxation tells.

    Attributes:
        bound: no assignment that fits costs less.
        multipliers: float64 `(limits,)`, the price of a unit of each limit's room.
        base: int `(kernels,)`, each kernel's choice at these prices.
        reduced: float64 `(kernels, widths)`: an assignment with this choice costs at least
            `bound + reduced`; 0 for `base`.
        feasible: the cheapest assignment met that fits, or `None`.
    """

    bound: float
    multipliers: np.ndarray
    base: np.ndarray
    reduced: np.ndarray
    feasible: np.ndarray | None


def relax(choices: Choices) -> Relaxation:
    """Finds the multipliers, by adding the cut of the best bound so far until there is nothing to
    gain.
    """
    limits = len(choices.room)
    # Above these every kernel picks its least use. The room is the scale of the small program: it
    # makes all slopes alike.
    scale = np.maximum(choices.room, 1.0)
    positive = np.where(choices.uses > 0, choices.uses, np.inf).min((1, 2), initial=np.inf)
    master = (_Crossing if limits == 1 else _Master)(
        scale / np.minimum(positive, scale), ceiling=len(choices.costs) + 1.0
    )
    corners = [np.zeros(limits), *(np.eye(limits) * master.largest)] if limits else [np.zeros(0)]
    best: tuple[float, np.ndarray, np.ndarray, np.ndarray] | None = None
    feasible, seen = None, set()
    for step in range(_CUTS):
        prices = corners[step] if step < len(corners) else master.next_prices()
        priced = choices.costs + np.tensordot(prices / scale, choices.uses, 1)
        picked = priced.argmin(1)
        slopes, cost = (choices.used(picked) - choices.room) / scale, choices.cost(picked)
        bound = cost + float(prices @ slopes)
        if best is None or bound > best[0]:
            best = bound, prices / scale, picked, priced
        if (slopes <= 0).all() and (feasible is None or cost < choices.cost(feasible)):
            feasible = picked
        nothing_to_gain = master.value - best[0] <= _EXACT * max(1.0, abs(best[0]))
        if step >= len(corners) - 1 and (not limits or nothing_to_gain or prices.tobytes() in seen):
            break
        seen.add(prices.tobytes())
        master.cut(cost, slopes)
    # Prices of zero were tried first.
    assert best is not None
    bound, multipliers, base, priced = best
    return Relaxation(
        bound, multipliers, base, priced - np.take_along_axis(priced, base[:, None], 1), feasible
    )


class _Master:
    """Kelley's program: the highest bound that all cuts so far allow, over the prices."""

    def __init__(self, largest: np.ndarray, ceiling: float):
        self.largest, self.value = largest, np.inf
        # Its operators build expressions, which its type hints do not know.
        self._model: Any = mip.Model(sense=mip.MAXIMIZE, solver_name=mip.CBC)
        self._model.verbose = 0
        self._model.threads = 1
        self._bound = self._model.add_var(lb=-mip.INF, ub=ceiling)
        self._prices = [self._model.add_var(lb=0.0, ub=float(value)) for value in largest]
        # CBC reports on programs without whole numbers whatever its log level.
        self._model.add_var(var_type=mip.BINARY)
        self._model.objective = self._bound * 1.0

    def cut(self, cost: float, slopes: np.ndarray) -> None:
        terms = (float(slope) * price for slope, price in zip(slopes, self._prices, strict=True))
        self._model += self._bound <= cost + _xsum(terms)

    def next_prices(self) -> np.ndarray:
        self._model.optimize()
        self.value = self._bound.x
        return np.array([price.x for price in self._prices])


class _Crossing:
    """The same program over one price.

    The highest point lies where the last falling cut crosses the last rising one.
    """

    def __init__(self, largest: np.ndarray, ceiling: float):
        self.largest, self.value = largest, ceiling
        self._rising, self._falling = (ceiling, 0.0), (ceiling, 0.0)

    def cut(self, cost: float, slopes: np.ndarray) -> None:
        if slopes[0] > 0:
            self._rising = cost, float(slopes[0])
        else:
            self._falling = cost, float(slopes[0])

    def next_prices(self) -> np.ndarray:
        (low, up), (high, down) = self._rising, self._falling
        price = np.clip((high - low) / (up - down), 0.0, self.largest[0]) if up > down else 0.0
        self.value = low + up * float(price)
        return np.array([price])
