"""Does TFLM answer with the packed file as with the int8 file, and as LiteRT does?"""

import dataclasses

import keras
import numpy as np

from bmpq_tf import progress
from bmpq_tf.export.errors import ExportError
from bmpq_tf.export.micro.runtime import Arena, MicroModel, least_arena
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.decode import DECODE, is_decode
from bmpq_tf.export.tflite.interpreter import TFLiteModel
from bmpq_tf.export.verification import near_ties
from bmpq_tf.export.verification.comparison import are_labels
from bmpq_tf.export.verification.inputs import batch_count, input_batches


@dataclasses.dataclass(frozen=True)
class MicroReport:
    """What TFLM, the runtime of microcontrollers, did with a file.

    Attributes:
        arena: the memory that it takes there; `arena.bytes` is the least size that works.
        operators: the names of its operators, each once, as the firmware must register them.
        examples: how many inputs both files answered alike, bit for bit.
        steps: the largest difference from LiteRT's answers, in steps of an output. The two round
            the same sums by different code, and what is a step in one layer may be two in a later
            one.
        within_a_step: the share of output values that are at most one step apart.

    Example:
        >>> options = {"optimize_for": "micro", "calibrate_with": images}
        >>> report = bmpq_tf.export_tflite(model, folder / "micro.tflite", **options)
        >>> report.micro.examples, report.micro.within_a_step > 0.98
        (32, True)
    """

    arena: Arena
    operators: tuple[str, ...]
    examples: int
    steps: int
    within_a_step: float

    def in_words(self, flash: int) -> str:
        """Returns it in a line, for a file of so many bytes."""
        return (
            f"in TFLM: {flash:,} bytes of flash, an arena of {self.arena.bytes:,}; equal to the "
            f"int8 file bit for bit on {self.examples:,} examples; from LiteRT at most "
            f"{self.steps} steps of an output, {self.within_a_step:.2%} within one"
        )


def verify(
    model: keras.Model, content: bytes, integer_content: bytes, verify_with, rms_limit: float
) -> MicroReport:
    """Runs both files in TFLM, and the int8 one in LiteRT.

    Args:
        model: the Keras model.
        content: the packed file.
        integer_content: the same model with plain int8 kernels.
        verify_with: as `bmpq_tf.export_tflite` takes it.
        rms_limit: the root mean square of the differences from LiteRT, relative to its answers',
            that is allowed; of labels, the share that differ.

    Raises:
        ExportError: an answer differs.
        RuntimeError: TFLM refuses the file.
    """
    arena = least_arena(content)
    packed, plain = MicroModel(content), MicroModel(integer_content)
    litert, examples = TFLiteModel(integer_content), 0
    steps = near_ties.output_steps(flatbuffer.parse(integer_content))
    apart = _Apart(steps, [are_labels(output) for output in model.outputs])
    batches = input_batches(model, verify_with)
    for batch in progress.counted(batches, batch_count(model, verify_with)):
        answers, same = packed(batch), plain(batch)
        if not all(map(np.array_equal, answers, same)):
            raise ExportError(
                "In TFLM the packed file does not answer as the int8 file of the same model does, "
                "bit for bit. Nothing was written."
            )
        apart.add(answers, litert(batch))
        examples += len(batch[0])
    if not examples:
        raise ExportError("TFLM was given no examples to answer. Nothing was written.")
    if not apart.rms <= rms_limit:
        raise ExportError(
            f"TFLM's answers differ from LiteRT's by {apart.rms:.3g} of their size (root mean "
            f"square; of labels, the share that differ); {rms_limit:g} is allowed. Nothing was "
            "written."
        )
    return MicroReport(
        arena, operator_names(content), examples, apart.largest, apart.near / max(1, apart.count)
    )


def operator_names(content: bytes) -> tuple[str, ...]:
    """Returns the operators of a file, each once, in the order of their first use."""
    model = flatbuffer.parse(content)
    return tuple(
        dict.fromkeys(
            DECODE
            if is_decode(model, operator)
            else flatbuffer.schema_name(flatbuffer.builtin_of(model, operator))
            for subgraph in model.subgraphs
            for operator in subgraph.operators
        )
    )


class _Apart:
    """How far two runtimes' answers are apart, in steps of each output; labels are equal or not."""

    def __init__(self, steps: list[float], labels: list[bool]):
        self._scales, self._labels = [step or 1.0 for step in steps], labels
        self._squares = np.zeros((len(steps), 2))
        self.largest = self.near = self.count = 0

    @property
    def rms(self) -> float:
        """Relative to the second runtime's answers, of labels the share that differ; of the worst
        output.
        """
        differences, sizes = self._squares.T
        shares = differences / np.maximum(sizes, np.finfo(float).tiny)
        return float(np.where(self._labels, shares, np.sqrt(shares)).max())

    def add(self, ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            one, other = one.astype(np.float64), other.astype(np.float64)
            difference = np.abs(one - other)
            self._squares[number] += (
                (np.count_nonzero(difference), difference.size)
                if self._labels[number]
                else (np.square(difference).sum(), np.square(other).sum())
            )
            steps = np.round(difference / self._scales[number])
            self.largest = max(self.largest, int(steps.max(initial=0)))
            self.near += int((steps <= 1).sum())
            self.count += steps.size
