"""What an export is asked for, and what its stages hand on."""

import contextlib
import dataclasses
import os
import pathlib
from typing import Any

import keras

from bmpq_tf.allocation.budget import Budget
from bmpq_tf.export.integer import lookup_tables
from bmpq_tf.export.integer.ranges import Range
from bmpq_tf.export.kernels.match import Match
from bmpq_tf.export.kernels.packing import StoredKernel
from bmpq_tf.export.micro.verification import MicroReport
from bmpq_tf.export.report import ExportReport
from bmpq_tf.export.verification.parity import Parity
from bmpq_tf.model.activation_widths import activation_quantizers
from bmpq_tf.model.kernels import KernelState


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """The arguments of `export_tflite`, which says what they mean."""

    path: str | os.PathLike
    optimize_for: str = "size"
    verify_with: Any = None
    calibrate_with: Any = None
    io_dtype: str | None = None
    tolerance: float | None = None
    budget: "str | float | Budget | None" = None
    overwrite: bool = False
    verify_on: str = "host"
    inputs: Any = None
    input_shapes: Any = None
    activation_bits: int | None = None


@dataclasses.dataclass
class ExportState:
    """What is known of an export so far; each stage reads some fields and sets others.

    A field without a start is there once its stage has set it.

    Attributes:
        model: the trained model.
        options: what is asked for; `verify_with` and `calibrate_with` as they are read.
        judge_top1: whether the share of equal top-1 must reach its limit.
        path: where the file goes.
        computed: the model in float32, which the file's answers are compared with.
        until_end: what is undone when the export ends, well or not.
        kernels: every kernel of the model.
        limit: the budget that the widths must meet, if any.
        file: the model as flatbuffer objects: float after `convert`, integers after
            `write_integers`.
        floats: the float file, as objects that the later stages leave alone but for 1x1
            convolutions that are lowered.
        known_ranges: by tensor name, ranges that trained activation quantizers tell.
        matches: which constants are which kernels.
        stored: each of these constants with what it becomes.
        content: the file's bytes.
        integer_content: for a microcontroller: those of the same file with plain int8 kernels.
        packed_bytes: of the kernels' buffers, as read back.
        parity: how the file's answers compare with Keras's.
        micro: how TFLM's compare with LiteRT's, for a microcontroller.
        warnings: for the user, by category, in order.
        report: what `export_tflite` returns.
    """

    model: keras.Model
    options: ExportOptions
    judge_top1: bool = True
    path: pathlib.Path = dataclasses.field(init=False, repr=False)
    computed: keras.Model = dataclasses.field(init=False, repr=False)
    until_end: contextlib.ExitStack = dataclasses.field(
        default_factory=contextlib.ExitStack, repr=False
    )
    kernels: list[KernelState] = dataclasses.field(default_factory=list)
    limit: Budget | None = None
    file: Any = dataclasses.field(init=False, repr=False)
    floats: Any = dataclasses.field(init=False, repr=False)
    known_ranges: dict[str, Range] = dataclasses.field(default_factory=dict)
    matches: list[Match] = dataclasses.field(default_factory=list)
    stored: list[tuple[Match, StoredKernel]] = dataclasses.field(default_factory=list)
    content: bytes = b""
    integer_content: bytes = b""
    packed_bytes: int = 0
    parity: Parity = dataclasses.field(init=False, repr=False)
    micro: MicroReport | None = None
    warnings: list[tuple[type[UserWarning], str]] = dataclasses.field(default_factory=list)
    report: ExportReport = dataclasses.field(init=False, repr=False)

    @property
    def is_micro(self) -> bool:
        """Whether the file is for a microcontroller."""
        return self.options.optimize_for == "micro"

    @property
    def arithmetic(self) -> str:
        """How the file computes: `"size"`, `"latency"` or `"integer"`."""
        return "integer" if self.is_micro else self.options.optimize_for

    @property
    def alone(self) -> frozenset[int]:
        """Operators of an integer file that need no lookup table where they stand alone."""
        return lookup_tables.ALONE_IN_TFLM if self.is_micro else lookup_tables.ALONE

    @property
    def io_dtype(self) -> str:
        """Of the file's inputs and outputs; a microcontroller has no float by default."""
        integer = f"int{self.activation_bits}"
        return self.options.io_dtype or (integer if self.is_micro else "float32")

    @property
    def activation_bits(self) -> int:
        """The width of activations in an integer file, 8 or 16."""
        widths = {quantizer.bits for quantizer in activation_quantizers(self.model)}
        return self.options.activation_bits or (16 if 16 in widths else 8)

    @property
    def stored_by_path(self) -> dict[str, list[StoredKernel]]:
        """The constants that hold each kernel, by the kernel's path.

        A kernel that is lost has none.
        """
        found: dict[str, list[StoredKernel]] = {}
        for match, kernel in self.stored:
            for name in (match.kernel.path, *match.also):
                found.setdefault(name, []).append(kernel)
        return found

    @property
    def lost(self) -> list[KernelState]:
        """The quantized kernels that are no constants of the converted model."""
        stored = self.stored_by_path
        return [
            kernel
            for kernel in self.kernels
            if kernel.quantizer and kernel.kernel.path not in stored
        ]
