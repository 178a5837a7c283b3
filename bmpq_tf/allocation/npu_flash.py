"""What a kernel's weights take in the flash of an Ethos-U, at most.

Vela codes them by entropy. Trained integers fill the levels of their width nearly evenly, so that
the width is what they take. The forms below follow the order in which Vela 5.2 writes weights for
an Ethos-U55 or U65; the figures were measured (docs/npu.md).
"""

import math
from collections.abc import Sequence

from bmpq_tf.allocation.kernel import Kernel, Limit

# Bits a weight whose levels are about equally frequent. Vela has no code for 6 and 7 bits alone.
_CODE_BITS = {2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0, 6: 6.4, 7: 7.1, 8: 8.0}
# How far Vela is from the entropy of where zeros are that pad a kernel: narrow weights have zeros
# of their own, which it codes together with them.
_PADDING_FACTOR = {2: 0.6, 3: 0.7, 4: 1.0, 5: 1.1, 6: 1.1, 7: 1.1, 8: 1.2}
# A kernel is cut up, and each part begins with the table of its levels.
_PART_WEIGHTS, _PART_BYTES = 8192, 16
_ALIGNMENT = 16
# What the multipliers take at once: outputs, inputs, and positions of a window.
_OUTPUTS, _INPUTS, _DEEP_INPUTS, _POSITIONS = 8, 8, 32, 4


def encoded_bytes(kernel: Kernel, bits: int) -> int:
    """Returns what a kernel's weights take in the flash of an Ethos-U, at most.

    Args:
        kernel: its `window` is known.
        bits: its width.
    """
    padded = _padded(kernel)
    share = kernel.weights / padded
    code = _CODE_BITS[bits]
    where = _PADDING_FACTOR[bits] * padded * _entropy(share)
    needed = min(kernel.weights * code + where, padded * code)
    parts = 1 + kernel.weights // _PART_WEIGHTS
    if kernel.depthwise:
        # Few zeros at a time, so that each takes a code.
        needed, parts = padded * code, parts + 3
    table = _PART_BYTES if bits < 5 else 2 * _PART_BYTES
    return _up(math.ceil(needed / 8), _ALIGNMENT) + table + (parts - 1) * _PART_BYTES


def npu_flash_limit(kernels: Sequence[Kernel], bound: float) -> Limit:
    """Returns the row that holds all kernels' encoded weights to a bound in bytes.

    Raises:
        ValueError: some kernel's window is not known.
    """
    unknown = [kernel.path for kernel in kernels if kernel.window is None]
    if unknown:
        raise ValueError(
            "Bytes on an NPU cannot be limited, because it is not known how it reads "
            f"{', '.join(unknown)}. Received: npu_flash={bound:g}. Limit weight_bytes instead."
        )
    rows = tuple(
        tuple(encoded_bytes(kernel, bits) for bits in kernel.candidates) for kernel in kernels
    )
    return Limit("bytes of NPU flash", rows, math.floor(bound))


def _padded(kernel: Kernel) -> int:
    """The weights with the zeros that Vela adds to feed all multipliers."""
    assert kernel.window is not None
    outputs = _up(kernel.channels, _OUTPUTS)
    whole = _up(kernel.window, _POSITIONS)
    if kernel.depthwise:
        return outputs * whole
    inputs = kernel.weights // (kernel.channels * kernel.window)
    # It goes through a window's positions first where that wastes fewer multipliers than going
    # through the inputs.
    by_window = inputs / _up(inputs, _INPUTS) * kernel.window / whole
    if inputs <= _INPUTS or by_window >= inputs / _up(inputs, _DEEP_INPUTS):
        return outputs * _up(inputs, _INPUTS) * whole
    return outputs * _up(inputs, _DEEP_INPUTS) * kernel.window


def _entropy(share: float) -> float:
    """Bits that it takes to say of each of many whether it is one of a share."""
    if share >= 1:
        return 0.0
    return -(share * math.log2(share) + (1 - share) * math.log2(1 - share))


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
