"""What the program knows of a kernel, and what a limit on all of them is."""

import dataclasses

FLOAT_BITS = 32


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What the allocation needs to know of one kernel.

    Attributes:
        path: the kernel's variable path, its name everywhere.
        weights: how many weights it has.
        candidates: the widths it may have, ascending; `(32,)` for one that stays float.
        pinned: its one width is a decision, not a choice.
        end: `"small"` if it is pinned as a small end of the model, `"large"` if it got candidates
            from 4 bits up as a large one; `None` if nobody decided so.
        kept: its one width is what it has, because no gradients reach it to choose another by.
        channels: how many scales a file has for it.
        macs: multiply-accumulates for one example, where known.
        activation_bits: the width of what the kernel is multiplied with; 32 for float.
        window: how many positions of the input each output reads: 9 for 3x3, 1 for a dense layer;
            `None` where not known.
        depthwise: whether each output reads one input channel only.
        two_bit_levels: what 2 bits stand for, as `QuantizationConfig` has it.
    """

    path: str
    weights: int
    candidates: tuple[int, ...]
    pinned: bool = False
    kept: bool = False
    channels: int = 1
    macs: int | None = None
    activation_bits: int = FLOAT_BITS
    end: str | None = None
    window: int | None = None
    depthwise: bool = False
    two_bit_levels: str = "twos_complement"


@dataclasses.dataclass(frozen=True)
class Limit:
    """One row of the program: `sum of coefficients[l][b] * x[l, b] <= bound`.

    Attributes:
        name: what is limited.
        coefficients: what each kernel uses at each of its candidates.
        bound: what there is of it.
        beside: what is used whatever the widths, which `bound` leaves out.
    """

    name: str
    coefficients: tuple[tuple[int, ...], ...]
    bound: int
    beside: int = 0


def container_bits(bits: int, two_bit_levels: str = "twos_complement") -> int:
    """Returns the width of the narrowest LiteRT type that holds `bits`: 2, 4, 8 or 32.

    Symmetric levels of 2 bits, -3, -1, 1 and 3, need 4.
    """
    if bits == 2 and two_bit_levels == "symmetric":
        return 4
    return next(size for size in (2, 4, 8, FLOAT_BITS) if bits <= size)


def stored_bytes(kernel: Kernel, bits: int) -> int:
    """Returns the bytes that LiteRT stores for a kernel.

    Its packed weights, and a scale and a zero point for each channel.
    """
    container = container_bits(bits, kernel.two_bit_levels)
    return -(-kernel.weights * container // 8) + (
        0 if container == FLOAT_BITS else 12 * kernel.channels
    )
