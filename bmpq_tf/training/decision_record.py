"""What is kept, and printed, of a decision."""

from collections.abc import Mapping, Sequence

from bmpq_tf.allocation.budget import Budget
from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.allocation.sensitivity import Measurement, told_sensitivity
from bmpq_tf.allocation.solver import Solution
from bmpq_tf.model.kernels import KernelState, compression, total_bits


def begin(states: Sequence[KernelState], budget: Budget) -> None:
    """Notes the budget with each kernel, so that a file of an epoch before the first decision has
    it too.
    """
    for state in states:
        if state.quantizer:
            state.quantizer.budget = budget.to_dict()


def keep(
    states: Sequence[KernelState],
    epoch: int,
    budget: Budget,
    solution: Solution,
    measured: Mapping[str, Measurement],
    objective: str,
) -> None:
    """Adds a decision to the history that lies with each kernel in the model's file.

    Args:
        states: every kernel of the model.
        epoch: before which it fell, counted from 0.
        budget: that it was made for.
        solution: the widths.
        measured: what was known of each kernel, by path.
        objective: what sensitivities are told by.
    """
    for state in states:
        if state.quantizer:
            kernel = measured.get(state.kernel.path)
            record = {
                "epoch": int(epoch),
                "status": solution.status,
                "budget": budget.to_dict(),
                "bits": solution.bits[state.kernel.path],
                "sensitivity": told_sensitivity(kernel, objective) if kernel else None,
                "enbg": kernel.enbg if kernel else None,
            }
            state.quantizer.history = (*state.quantizer.history, record)


def line(
    states: Sequence[KernelState], solution: Solution, changed: Sequence[str], kept: Sequence[str]
) -> str:
    """Returns a decision in a line; `changed` and `kept` are paths of kernels."""
    chosen = [bits for bits in solution.bits.values() if bits != FLOAT_BITS]
    widths = ", ".join(f"{chosen.count(bits)} at {bits}" for bits in sorted(set(chosen)))
    without = f"; without gradients, so kept: {', '.join(kept)}" if kept else ""
    size = f"{compression(states):.2f}x, {total_bits(states) / 8000:.1f} kB"
    status = solution.status
    if status == "kept":
        status = f"kept, as the best saves at most {solution.gap:.1%}"
    return (
        f"{status} in {solution.seconds:.2f} s, {size}; {widths} bits; "
        f"{len(changed)} changed{without}"
    )
