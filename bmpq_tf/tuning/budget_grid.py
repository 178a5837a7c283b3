"""The budgets that a search for the smallest one chooses from, the smallest first."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import keras

from bmpq_tf.allocation.budget import Budget
from bmpq_tf.allocation.kernel import Kernel
from bmpq_tf.model.kernels import model_kernels
from bmpq_tf.training.allocator import open_kernels
from bmpq_tf.training.callback import BMPQCallback

# Each about a tenth larger than the one before, from 2 to 8 bits: five short runs find one.
COUNT = 16
_PARAMETER_BITS = {"compression", "average_bits", "weight_bytes"}


def budget_grid(model: keras.Model, budgets: Sequence[Any] | None, epochs: int) -> list[Budget]:
    """Returns the budgets of a search.

    Args:
        model: quantized.
        budgets: as the user says them; by default `COUNT` averages of bits a weight from the
            narrowest candidates to the widest, each larger than the last by the same factor.
        epochs: of a short run.

    Raises:
        InfeasibleBudgetError: a budget that no candidate widths meet.
        ValueError: one is twice there, or two of them cannot be ordered by size.
    """
    kernels = [state.kernel for state in open_kernels(model_kernels(model))]
    if budgets is None:
        budgets = found = _default(kernels)
    else:
        found = _ordered([Budget.parse(budget) for budget in budgets], kernels)
    for budget in budgets:
        BMPQCallback(budget, verbose=0).check(model, epochs)
    return found


def _default(kernels: Sequence[Kernel]) -> list[Budget]:
    weights = sum(kernel.weights for kernel in kernels)
    least, most = (
        sum(kernel.weights * end(kernel.candidates) for kernel in kernels) / weights
        for end in (min, max)
    )
    averages = [least * (most / least) ** (number / (COUNT - 1)) for number in range(COUNT)]
    # Rounded up, so that the narrowest widths meet the smallest one.
    rounded = sorted({math.ceil(100 * round(average, 6)) / 100 for average in averages})
    return [Budget(average_bits=average) for average in rounded]


def limited_by(budget: Budget) -> frozenset[str]:
    """Returns what a budget limits, all kinds of parameter bits as one."""
    names = budget.to_dict()
    return frozenset("parameter bits" if name in _PARAMETER_BITS else name for name in names)


def _ordered(budgets: Sequence[Budget], kernels: Sequence[Kernel]) -> list[Budget]:
    """Smallest first, where one that is larger in any limit is smaller in none."""

    def size(budget: Budget) -> tuple[float, ...]:
        given = budget.to_dict()
        rest = tuple(given[name] for name in sorted(given) if name not in _PARAMETER_BITS)
        bits = budget.bits(kernels)
        return (*(() if bits is None else (bits,)), *rest)

    ordered = sorted(budgets, key=size) if len(set(map(limited_by, budgets))) == 1 else []
    for smaller, larger in itertools.pairwise(ordered):
        if size(smaller) == size(larger):
            raise ValueError(
                f"Two of the budgets allow the same. Received: {smaller} and {larger}. Leave one "
                "out."
            )
    pairs = [(size(smaller), size(larger)) for smaller, larger in itertools.pairwise(ordered)]
    if not ordered or any(a > b for pair in pairs for a, b in zip(*pair, strict=True)):
        raise ValueError(
            "Bisection needs budgets of which each allows more than the one before. Received: "
            f"budgets={[str(budget) for budget in budgets]}. Let all of them limit the same, such "
            "as ['4x', '8x', '12x']."
        )
    return ordered
