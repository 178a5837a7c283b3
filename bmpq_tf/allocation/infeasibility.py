"""Why no widths meet a budget, in words."""

import math

from bmpq_tf.allocation.kernel import FLOAT_BITS, Limit, container_bits


def smallest_reached(kernels, limit: Limit, smallest: int) -> str:
    """Returns the smallest value that a limit can have, in the units that a budget is given in.

    Args:
        kernels: every kernel of the model.
        limit: which quantity.
        smallest: its value with every kernel at its narrowest; bits for parameter bits.
    """
    if limit.name != "parameter bits":
        return f"{smallest:,} {limit.name}"
    total = sum(kernel.weights for kernel in kernels)
    # Each rounded so that the figure named can be asked for.
    compression = math.floor(FLOAT_BITS * total / smallest * 100) / 100
    return (
        f"{compression:g}x ({-(-smallest // 8):,} bytes, "
        f"{math.ceil(smallest / total * 1000) / 1000:g} bits)"
    )


def holding_up(kernels, limit: Limit) -> str:
    """Returns which kernels keep a limit out of reach, and what can be done; "" if none does.

    Args:
        kernels: every kernel of the model.
        limit: which cannot be met.
    """
    floats = [kernel for kernel in kernels if kernel.candidates == (FLOAT_BITS,)]
    pinned = [kernel for kernel in kernels if kernel.pinned]
    kept = [kernel for kernel in kernels if kernel.kept]
    choosable = [
        kernel for kernel in kernels if not (kernel.pinned or kernel.kept or kernel in floats)
    ]
    narrowest = min(
        (kernel.candidates[0] for kernel in choosable if kernel.end != "large"), default=None
    )
    large = [
        kernel
        for kernel in choosable
        if kernel.end == "large" and (narrowest is None or kernel.candidates[0] > narrowest)
    ]
    reasons, ways = [], []
    if pinned:
        reasons.append(
            f"{_names(pinned)} {'is' if len(pinned) == 1 else 'are'} pinned at {_widths(pinned)} "
            "bits"
        )
        ways.append("unpin " + ("it" if len(pinned) == 1 else "them"))
    if large:
        reasons.append(
            f"{_names(large)} {'is an end' if len(large) == 1 else 'are ends'} of the model that "
            f"may have {_widths(large)} bits at least"
        )
        ways.append(f"give {'it' if len(large) == 1 else 'them'} narrower candidates in overrides=")
    if floats:
        reasons.append(f"{_names(floats)} stay{'s' if len(floats) == 1 else ''} float at 32 bits")
        ways.append("quantize " + ("it" if len(floats) == 1 else "them"))
    if kept:
        reasons.append(
            f"{_names(kept)} keep{'s' if len(kept) == 1 else ''} {_widths(kept)} bits, as no "
            f"gradients reach {'it' if len(kept) == 1 else 'them'}"
        )
        ways.append("let " + ("it" if len(kept) == 1 else "them") + " train")
    # What is pinned may hold up a budget that the candidates would not meet without it either.
    unmet = (
        narrowest is not None
        and limit.name == "parameter bits"
        and narrowest * sum(kernel.weights for kernel in kernels) > limit.bound
    )
    if not reasons and narrowest == container_bits(1):
        return f", because no width is narrower than {narrowest} bits; loosen the budget"
    if narrowest is not None and (not reasons or (unmet and narrowest > container_bits(1))):
        reasons.append(f"{narrowest} bits is the narrowest candidate")
        ways.append("allow narrower candidates")
    return (
        f", because {' and '.join(reasons)}; {', '.join(ways)} or loosen the budget"
        if reasons
        else ""
    )


def _names(kernels) -> str:
    largest = sorted(kernels, key=lambda kernel: -kernel.weights)
    shown = [f"'{kernel.path}'" for kernel in largest[:4]]
    rest = len(largest) - len(shown)
    if rest:
        shown.append(f"{rest} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _widths(kernels) -> str:
    return ", ".join(str(bits) for bits in sorted({kernel.candidates[0] for kernel in kernels}))
