"""What a `.tflite` file holds, as plain records."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Weights:
    """One constant that an operator reads as weights.

    Attributes:
        name: the tensor's.
        operator: that reads it, behind a `DEQUANTIZE` if there is one.
        shape: of the constant.
        stored: its type, such as `"int4"`.
        bits: that its values really use: the narrowest width that holds them; `None` for floats.
        dequantized: whether the operator reads floats made of it.
        scales: how many; `smallest_scale`, `largest_scale`: their range, or `None`.
        bytes: of the packed values, without scales.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    stored: str
    bits: int | None
    dequantized: bool
    scales: int
    smallest_scale: float | None
    largest_scale: float | None
    bytes: int

    @property
    def count(self) -> int:
        """How many weights."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class IOTensor:
    """An input or an output.

    Attributes:
        name: the signature's key for it; the tensor's own name where the file has no signature.
        shape: -1 is any size.
        stored: its type, such as `"float32"`.
        scale, zero_point: `value = scale * (integer - zero_point)`; `None` where it is not
            quantized.
    """

    name: str
    shape: tuple[int, ...]
    stored: str
    scale: float | None
    zero_point: int | None


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a program gives and gets.

    Attributes:
        key: such as `"serving_default"`; `None` for the whole of a file without signatures.
        inputs: in the order of the tensors that the runtime counts them in; `outputs` likewise.
    """

    key: str | None
    inputs: tuple[IOTensor, ...]
    outputs: tuple[IOTensor, ...]


@dataclasses.dataclass(frozen=True)
class Inspection:
    """A file.

    Attributes:
        bytes: its size.
        signatures: its inputs and outputs; ours have one signature, others may have several or
            none.
        weights: its kernels, in the order of the operators.
        operators: how many of each kind.
        scales: how many, those of integer biases and activations included.
        other_constant_bytes: biases, shapes and other constants.
        orphaned_bytes: in buffers that nothing reads.
        custom_operators: those that are no builtins, Flex ones included.
        metadata: what bmpq_tf wrote, or `None`.

    Example:
        >>> report = bmpq_tf.export_tflite(model, folder / "model.tflite")
        >>> inspection = bmpq_tf.inspect_tflite(report.path)
        >>> inspection.operators["CONV_2D"], inspection.scales, inspection.custom_operators
        (1, 14, ())
    """

    bytes: int
    signatures: tuple[Signature, ...]
    weights: tuple[Weights, ...]
    operators: dict[str, int]
    scales: int
    other_constant_bytes: int
    orphaned_bytes: int
    custom_operators: tuple[str, ...]
    metadata: dict[str, Any] | None

    @property
    def size_bound(self) -> float:
        """Returns the bytes that a tight file of this content takes at most.

        `1.03 * (packed weights + 12 a scale + every other constant) + 16 kB + 400 an operator`.
        """
        constants = (
            sum(one.bytes for one in self.weights) + 12 * self.scales + self.other_constant_bytes
        )
        return 1.03 * constants + 16_000 + 400 * sum(self.operators.values())

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return {**dataclasses.asdict(self), "size_bound": self.size_bound}
