"""Which type holds a kernel's integers, and how the operator reads them.

What `probe` found right and no slower than int8.
"""

import dataclasses
import math

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.allocation.kernel import container_bits
from bmpq_tf.export.tflite import flatbuffer

# Those that LiteRT runs, and all.
LITERT_MODES = ("size", "latency", "integer")
MODES = (*LITERT_MODES, "micro")
_BUILTIN = schema.BuiltinOperator
# Operators that compute with the integers themselves, as the probe found them; the other ways of
# reading are in its table.
DYNAMIC = {
    _BUILTIN.CONV_2D: (8,),
    _BUILTIN.FULLY_CONNECTED: (4, 8),
    _BUILTIN.TRANSPOSE_CONV: (8,),
    _BUILTIN.BATCH_MATMUL: (8,),
}
# Operators that read a float kernel outside XNNPACK anyway, so that the type behind the DEQUANTIZE
# costs them no time.
LOOKUPS = (_BUILTIN.GATHER, _BUILTIN.EMBEDDING_LOOKUP)
# int4 fully connected layers are no slower than int8 for this many rows of an example (1.0 to 1.7
# times as fast), int2 never faster than int4: docs/runtime_matrix.md.
FEW_ROWS = 16


@dataclasses.dataclass(frozen=True)
class Container:
    """How the file holds a kernel.

    Attributes:
        bits: of the type: 2, 4 or 8.
        compute: `"weight_only"`: through a `DEQUANTIZE`; `"dynamic"`: integers beside float inputs;
            `"static"`: integers only.
        note: why it is wider than its width or not computed with integers, or empty.
    """

    bits: int
    compute: str
    note: str = ""


def choose(mode: str, builtin: int, integers: np.ndarray, bits: int, rows: int | None) -> Container:
    """Returns how a kernel is held.

    Args:
        mode: of `LITERT_MODES`; files of `"micro"` are made from those of `"integer"`.
        builtin: the operator that reads it.
        integers: as they will be stored with zero point 0: where folding changed signs, changed.
        bits: the width it was trained at.
        rows: how many rows of an example meet the kernel (positions of a convolution); `None` if
            not known.
    """
    narrowest = container_bits(bits)
    if mode == "size":
        # Signs that folding turned lie in the type as complements.
        if bits == 2 and _are_symmetric(integers):
            return Container(4, "weight_only", "in int4: int2 has no levels -3, -1, 1, 3")
        return Container(narrowest, "weight_only", _wider(bits, narrowest))
    narrowest = next(size for size in (2, 4, 8) if size >= narrowest and fits(integers, size))
    name = flatbuffer.schema_name(builtin)
    if mode == "integer" and builtin in LOOKUPS:
        return Container(
            8,
            "static",
            f"in int8 on one grid, since {name} copies integers: rounded as its output is, not "
            "exactly as trained",
        )
    if mode == "integer":
        return Container(8, "static", _wider(bits, 8, "in int8, which every integer kernel reads"))
    if builtin in LOOKUPS:
        return Container(narrowest, "weight_only", _wider(bits, narrowest))
    if builtin not in DYNAMIC:
        return Container(
            8,
            "weight_only",
            f"{name} has no faster kernel for integer weights beside float inputs, so they are "
            "dequantized when loaded",
        )
    # int8 serves every operator.
    size = next(
        size
        for size in DYNAMIC[builtin]
        if size >= narrowest and _fast(size, integers, rows) and _safe(integers, size)
    )
    reason = f"in int{size}, the narrowest that {name} takes and is no slower with"
    return Container(size, "dynamic", _wider(bits, size, reason))


def fits(integers: np.ndarray, bits: int) -> bool:
    """Whether integers fit a type; int8 is used without -128, as LiteRT asks."""
    low = -(2 ** (bits - 1)) + (bits == 8)
    return bool(integers.min(initial=0) >= low and integers.max(initial=0) < 2 ** (bits - 1))


def _are_symmetric(integers: np.ndarray) -> bool:
    """Whether integers of 2 bits are -3, -1, 1 and 3, in place of -2 to 1."""
    return bool(np.abs(integers).max(initial=0) == 3)


def _fast(size: int, integers: np.ndarray, rows: int | None) -> bool:
    few = rows is not None and rows <= FEW_ROWS
    # XNNPACK takes rows of whole bytes only.
    whole = integers.shape[-1] % (8 // size) == 0
    return size == 8 or (whole and few)


def _safe(integers: np.ndarray, size: int) -> bool:
    """The built-in int4 kernel for fully connected layers is wrong with -8 (the probe's "narrow");
    XNNPACK's is right.
    """
    return size != 4 or integers.min(initial=0) > -8


def _wider(bits: int, container: int, why: str = "") -> str:
    if container == bits:
        return ""
    return f"stored {why}" if why else f"LiteRT has no {bits}-bit type"


def largest_rows(shape) -> int | None:
    """Returns the product of an activation's sizes but the first and the last, or `None` if one of
    them is not known.
    """
    sizes = [int(size) for size in shape[1:-1]]
    return None if any(size < 1 for size in sizes) else math.prod(sizes)
