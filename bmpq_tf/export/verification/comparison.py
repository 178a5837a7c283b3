"""Runs the Keras model and the file on the same inputs and adds up how far they are apart."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf import progress
from bmpq_tf.export.integer.grids import is_mostly_trained
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.inner_tensors import Exposed
from bmpq_tf.export.tflite.interpreter import Runtime, TFLiteModel
from bmpq_tf.export.verification.constant_columns import ColumnRanges
from bmpq_tf.export.verification.inputs import batch_count, first_examples, input_batches
from bmpq_tf.export.verification.near_ties import near_ties, output_steps
from bmpq_tf.export.verification.parity import (
    TOLERANCE,
    Parity,
    least_agreement,
    limits_of,
    mistakes_allowed,
    tolerance_of,
)
from bmpq_tf.export.verification.rounding_ties import Following, rounded_tensors
from bmpq_tf.model import keras_graph
from bmpq_tf.model.activation_widths import activation_quantizers


def compare(
    model: keras.Model,
    content: bytes,
    verify_with=None,
    optimize_for: str = "size",
    tolerance: float | None = None,
    *,
    judge_top1: bool = True,
    runtime: Runtime = TFLiteModel,
    activation_bits: int | None = None,
) -> Parity:
    """Runs both models on the same inputs.

    All of them with XNNPACK, and a few with the built-in kernels as well.

    Args:
        model: the Keras model.
        content: the `.tflite` file's bytes.
        verify_with: arrays as the model takes them, a `tf.data.Dataset` of batches (labels are left
            out), or `None` for random inputs.
        optimize_for: the kind of file.
        tolerance: the largest `rms` to allow, in place of the kind's own; of labels, the share that
            may differ.
        judge_top1: whether the agreement must reach its limit; that of random inputs never need.
        runtime: what runs the file.
        activation_bits: the width of an integer file's activations, where it decides what counts as
            close; by default the narrowest that the model rounds to.

    Raises:
        ValueError: the inputs do not fit the model, or there are none.
    """
    tally = _Tally(model, content, optimize_for, runtime, activation_bits)
    file, examples = None, 0
    batches = input_batches(model, verify_with)
    for batch in progress.counted(batches, batch_count(model, verify_with)):
        examples += len(batch[0])
        if file is None:
            few = first_examples(model, batch)
            expected = keras_answers(model, few)
            # Each holds the weights dequantized, so one is gone before the other is made.
            tally.add(few, expected, runtime(content, xnnpack=False)(few), xnnpack=False)
            file = runtime(content)
            tally.add(few, expected, file(few), xnnpack=True)
            batch = [array[len(few[0]) :] for array in batch]
        if len(batch[0]):
            tally.add(batch, keras_answers(model, batch), file(batch), xnnpack=True)
    if not examples:
        raise ValueError(
            "verify_with has no examples, or not a whole batch. Give at least one, or leave "
            "verify_with out to compare on other inputs."
        )
    return tally.parity(examples, verify_with is None, tolerance, judge_top1)


def are_labels(output) -> bool:
    """Whether a model's output has integers or truth values: equal or not, but never near."""
    return not output.dtype.startswith(("float", "bfloat"))


class _Follower:
    """Compares once more, with Keras on LiteRT's side wherever a value lies at the edge between two
    steps.
    """

    def __init__(self, model: keras.Model, content: bytes, xnnpack: bool, runtime: Runtime):
        self._model, self._rounded = model, rounded_tensors(content)
        self._exposed = Exposed(content, xnnpack, self._rounded.__contains__, runtime)
        self.following = Following(model, TOLERANCE)

    def differences(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        received, tensors = self._exposed(batch)
        # Float inputs come along.
        rounded = {name: values for name, values in tensors.items() if name in self._rounded}
        with self.following.taking(rounded):
            expected = keras_answers(self._model, batch)
        return _largest_differences(expected, received)


def _largest_differences(
    expected: Sequence[np.ndarray], received: Sequence[np.ndarray]
) -> np.ndarray:
    """By output; a NaN on either side is infinitely far, so that it cannot pass as a small
    difference.
    """
    apart = np.array(
        [
            np.abs(ours - theirs).max(initial=0.0)
            for ours, theirs in zip(expected, received, strict=True)
        ],
        np.float64,
    )
    return np.where(np.isfinite(apart), apart, np.inf)


def keras_answers(model: keras.Model, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the model's outputs for one batch, flat, float32."""
    structured = keras_graph.structured_inputs(
        model, [tf.convert_to_tensor(array) for array in batch]
    )
    return [
        np.asarray(output, np.float32)
        for output in keras.tree.flatten(model(structured, training=False))
    ]


class _Tally:
    """Collects differences over batches."""

    def __init__(
        self,
        model: keras.Model,
        content: bytes,
        optimize_for: str,
        runtime: Runtime = TFLiteModel,
        activation_bits: int | None = None,
    ):
        self._model, self._optimize_for = model, optimize_for
        self._rounded = activation_bits or min(
            (quantizer.bits for quantizer in activation_quantizers(model)), default=None
        )
        # Where activations are 8-bit integers in the file alone, every value may differ by a step.
        follows = optimize_for == "size" and self._rounded
        self._followers = (
            {xnnpack: _Follower(model, content, xnnpack, runtime) for xnnpack in (True, False)}
            if follows
            else {}
        )
        file = flatbuffer.parse(content)
        self._mostly_trained = is_mostly_trained(file)
        self._departed = ""
        self._labels = np.array([are_labels(output) for output in model.outputs])
        outputs = len(model.outputs)
        self.difference, self.unexplained, self.scale = np.zeros((3, outputs))
        self.equal, self.near, self.compared = np.zeros((3, outputs), int)
        self._steps = output_steps(file)
        self.squares = np.zeros((2, outputs, 2))
        self._columns = (
            [ColumnRanges(model, number) for number in range(outputs)]
            if optimize_for == "integer"
            else []
        )

    def add(
        self,
        batch: Sequence[np.ndarray],
        expected: Sequence[np.ndarray],
        received: Sequence[np.ndarray],
        xnnpack: bool,
    ) -> None:
        shapes, wanted = (
            [np.shape(output) for output in outputs] for outputs in (received, expected)
        )
        if shapes != wanted:
            raise RuntimeError(f"its answers have the shapes {shapes}, the model's {wanted}.")
        self.scale = np.maximum(self.scale, [np.abs(ours).max(initial=0.0) for ours in expected])
        apart = np.where(self._labels, 0.0, _largest_differences(expected, received))
        self.difference = np.maximum(self.difference, apart)
        if self._followers and not (apart <= tolerance_of(self._optimize_for, self.scale)).all():
            apart = self._followers[xnnpack].differences(batch)
            apart = np.where(self._labels, 0.0, apart)
            if not (apart <= tolerance_of(self._optimize_for, self.scale)).all():
                self._departed = self._departed or self._followers[xnnpack].following.departed
        self.unexplained = np.maximum(self.unexplained, apart)
        if xnnpack:
            for columns, ours, theirs in zip(self._columns, expected, received, strict=False):
                columns.add(ours, theirs)
        for number, (ours, theirs) in enumerate(zip(expected, received, strict=True)):
            if self._labels[number]:
                self.equal[number] += (ours == theirs).sum()
                self.compared[number] += ours.size
                continue
            self.squares[int(xnnpack), number] += (
                np.square(ours - theirs, dtype=np.float64).sum(),
                np.square(ours, dtype=np.float64).sum(),
            )
            # The examples of the built-in kernels are among those of XNNPACK.
            if xnnpack and ours.ndim >= 2 and ours.shape[-1] > 1:
                same = ours.argmax(-1) == theirs.argmax(-1)
                self.equal[number] += same.sum()
                self.compared[number] += same.size
                self.near[number] += near_ties(ours, theirs, self._steps[number])

    def parity(
        self, examples: int, generated: bool, tolerance: float | None, judge_top1: bool = True
    ) -> Parity:
        ratios = self.squares[..., 0] / np.maximum(self.squares[..., 1], np.finfo(np.float64).tiny)
        rms = float(np.sqrt(ratios).max()) if np.isfinite(ratios).all() else float("inf")
        with np.errstate(invalid="ignore"):
            beyond = self.unexplained / tolerance_of(self._optimize_for, self.scale)
        worst = int(np.argmax(beyond if beyond.any() else self.difference))
        agreement = np.divide(
            self.equal, self.compared, out=np.ones(len(self.equal)), where=self.compared > 0
        )
        limits = limits_of(self._optimize_for, self._rounded, self._mostly_trained)
        least = least_agreement(limits, self._labels, tolerance)
        mistakes = self.compared - self.equal - self.near - mistakes_allowed(least, self.compared)
        worst_top1 = min(
            range(len(agreement)),
            key=lambda number: (-max(0.0, mistakes[number]), agreement[number]),
        )
        ties = sum(follower.following.ties for follower in self._followers.values())
        return Parity(
            max_abs_diff=float(self.difference[worst]),
            logit_scale=float(self.scale[worst]),
            agreement=float(agreement[worst_top1]),
            examples=examples,
            generated=generated,
            unexplained_diff=float(self.unexplained[worst]),
            rms=rms,
            optimize_for=self._optimize_for,
            compared=int(self.compared[worst_top1]),
            near_ties=int(self.near[worst_top1]),
            allowed=tolerance,
            ties=ties,
            departed=self._departed,
            rounded=self._rounded,
            mostly_trained=self._mostly_trained,
            judges_top1=(judge_top1 and not generated)
            or tolerance is not None
            or self._optimize_for == "size",
            labels=bool(self._labels[worst_top1]),
            constant=tuple(found for columns in self._columns if (found := columns.constant())),
        )
