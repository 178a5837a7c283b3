"""Does the file answer as the Keras model does?"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf.export.tflite.inner_tensors import Exposed
from bmpq_tf.export.tflite.interpreter import TFLiteModel, in_rank
from bmpq_tf.export.verification.constant_columns import ColumnRanges, ConstantColumns, in_words
from bmpq_tf.export.verification.rounding_ties import Following, activation_quantizers, use_of
from bmpq_tf.model import keras_graph

TOLERANCE = 1e-4
# Sums whose terms cancel are rounded in float32 by more than a share of what is left of them; below this size of outputs that is allowed for.
_FLOOR = 0.01
_GENERATED = 16
_OPEN = 64  # of an axis of any size: enough for the poolings of common networks


@dataclasses.dataclass(frozen=True)
class Limits:
    """What counts as an answer that is still the model's.

    Attributes:
        largest: the largest difference, relative to the largest output, or to 0.01 where that is smaller; `None` where rounding of
            activations makes single values drift.
        rms: the root mean square of the differences relative to that of an output.
        agreement: the share of equal top-1 that inputs of the user's must reach; two examples may always differ.
    """

    largest: float | None
    rms: float
    agreement: float


# "size" computes as Keras does. Rounding every activation to 8 bits moves an output by a few percent of its spread.
LIMITS = {
    "size": Limits(TOLERANCE, TOLERANCE, 0.0),
    "latency": Limits(None, 0.1, 0.9),
    "integer": Limits(None, 0.2, 0.8),
}
# "integer" where Keras rounds activations too, by their narrowest width. The file then rounds to the same steps; what is left are values
# at an edge that go the other way, each by a step, and the tensors between two quantizers. Small residual networks: 0.012, 0.064, 0.23.
ROUNDED_LIMITS = {8: Limits(None, 0.05, 0.9), 4: Limits(None, 0.15, 0.9), 2: Limits(None, 0.4, 0.85)}


@dataclasses.dataclass(frozen=True)
class Parity:
    """How close two models' outputs are. Where there are several, each is judged by itself, and each figure is that of the worst.

    Attributes:
        max_abs_diff: the largest difference of an output value.
        logit_scale: the largest value of that output of the Keras model.
        agreement: the share of equal positions of the largest value (top-1); 1 where `compared` is 0, as for outputs of one value.
        examples: how many were compared.
        generated: whether the inputs were random, for want of better ones.
        rms: the root mean square of the differences, relative to that of the output.
        optimize_for: the kind of file, which sets the limits.
        compared: how many positions the agreement counts.
        allowed: the user's own limit of `rms`, or `None`.
        unexplained_diff: in `"size"`, the largest difference that is left once Keras has taken LiteRT's side at the edges between
            two steps of an activation (`bmpq_tf.export.verification.rounding_ties`); `max_abs_diff` where activations are float.
        ties: how many values those were, in the batches where they moved an answer.
        rounded: the narrowest width that the model rounds activations to, or `None`.
        judges_top1: whether the agreement must reach its limit: on inputs that the user gave to verify with, without a limit of his own.
        constant: in `"integer"`, columns of outputs in which the file answers one single value and Keras does not.
    """

    max_abs_diff: float
    logit_scale: float
    agreement: float
    examples: int
    generated: bool
    unexplained_diff: float
    rms: float = 0.0
    optimize_for: str = "size"
    compared: int = 0
    allowed: float | None = None
    ties: int = 0
    rounded: int | None = None
    judges_top1: bool = True
    constant: tuple[ConstantColumns, ...] = ()

    @property
    def caution(self) -> str:
        """What is no reason to refuse the file, but to look at it again, in words, or nothing."""
        return in_words(self.constant, self.examples)

    @property
    def limits(self) -> Limits:
        """What is allowed for this kind of file and model, unless the user says so."""
        return _limits(self.optimize_for, self.rounded)

    @property
    def _activation_bits(self) -> int:
        return self.rounded if self.rounded and self.optimize_for == "integer" else 8

    @property
    def rms_limit(self) -> float:
        """The relative root mean square that is allowed."""
        return self.limits.rms if self.allowed is None else self.allowed

    @property
    def tolerance(self) -> float:
        """The largest difference that counts as rounding; infinite where the mean decides."""
        return float(_tolerance(self.optimize_for, np.float64(self.logit_scale)))

    @property
    def _in_words(self) -> str:
        return f"; top-1 agreement {self.agreement:.4f}" if self.compared else ""

    @property
    def problem(self) -> str:
        """What is beyond the limits, in words, or nothing. NaN is beyond all of them."""
        limits = self.limits
        if not np.isfinite(self.max_abs_diff):
            return f"LiteRT answers NaN or infinity, or Keras does, on some of {self.examples} examples."
        if self.unexplained_diff > self.tolerance:
            return (
                f"LiteRT's answers differ from Keras's by up to {self.unexplained_diff:.3g} on {self.examples} examples, more than the "
                f"{self.tolerance:.3g} that rounding explains{self._in_words}."
            )
        if limits.largest is None and self.rms > self.rms_limit:
            return (
                f"LiteRT's answers differ from Keras's by {self.rms:.3g} of their size (root mean square, {self.examples} examples), more than "
                f'the {self.rms_limit:g} that optimize_for="{self.optimize_for}" allows for {self._activation_bits}-bit activations'
                f"{self._in_words}. If that is close enough for you, say so with tolerance=."
                + " The inputs were random: better give inputs like those that the model will meet, with verify_with=."
                * self.generated
            )
        mistakes = (1 - self.agreement) * self.compared
        if self.judges_top1 and mistakes > _mistakes_allowed(limits, self.compared):
            return (
                f"LiteRT's top-1 is Keras's for {self.agreement:.4f} of {self.examples} examples, less than the {limits.agreement:g} that "
                f'optimize_for="{self.optimize_for}" must reach. If top-1 means nothing for these outputs, say with tolerance= how close '
                "they must be."
            )
        return ""

    @property
    def holds(self) -> bool:
        """Whether the file answers as the model does, within the limits of its kind; NaN does not."""
        return not self.problem


def compare(
    model: keras.Model, content: bytes, verify_with=None, optimize_for: str = "size", tolerance: float | None = None, *, judge_top1: bool = True
) -> Parity:
    """Runs both models on the same inputs: all of them with XNNPACK, and a few with the built-in kernels as well.

    Args:
        model: the Keras model.
        content: the `.tflite` file's bytes.
        verify_with: arrays as the model takes them, a `tf.data.Dataset` of batches (labels are left out), or `None` for random
            inputs.
        optimize_for: the kind of file.
        tolerance: the largest `rms` to allow, in place of the kind's own.
        judge_top1: whether the agreement must reach its limit; that of random inputs never need.

    Raises:
        ValueError: the inputs do not fit the model, or there are none.
    """
    tally = _Tally(model, content, optimize_for)
    runtime, examples = None, 0
    for batch in input_batches(model, verify_with):
        if runtime is None:
            few = _few(model, batch)
            # Each holds the weights dequantized, so one is gone before the other is made.
            tally.add(few, TFLiteModel(content, xnnpack=False)(few), xnnpack=False)
            runtime = TFLiteModel(content)
        tally.add(batch, runtime(batch), xnnpack=True)
        examples += len(batch[0])
    if not examples:
        raise ValueError("verify_with has no examples, or not a whole batch. Give at least one, or nothing to verify on random inputs.")
    return tally.parity(examples, verify_with is None, tolerance, judge_top1)


def _limits(optimize_for: str, rounded: int | None) -> Limits:
    return ROUNDED_LIMITS[rounded] if rounded and optimize_for == "integer" else LIMITS[optimize_for]


def _mistakes_allowed(limits: Limits, compared):
    return np.maximum(2, (1 - limits.agreement) * compared)


def _tolerance(optimize_for: str, scale):
    largest = LIMITS[optimize_for].largest
    return np.full_like(scale, np.inf) if largest is None else largest * np.maximum(_FLOOR, scale)


class _Follower:
    """Compares once more, with Keras on LiteRT's side wherever a value lies at the edge between two steps."""

    def __init__(self, model: keras.Model, content: bytes, xnnpack: bool):
        self._model, self._exposed = model, Exposed(content, xnnpack, wanted=lambda name: use_of(name) is not None)
        self._following = Following(model, TOLERANCE)

    @property
    def ties(self) -> int:
        return self._following.ties

    def differences(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        received, tensors = self._exposed(batch)
        with self._following.taking({use: values for name, values in tensors.items() if (use := use_of(name))}):
            expected = keras_answers(self._model, batch)
        return _largest_differences(expected, received)


def _largest_differences(expected: Sequence[np.ndarray], received: Sequence[np.ndarray]) -> np.ndarray:
    """By output; a NaN on either side is infinitely far, so that it cannot pass as a small difference."""
    apart = np.array([np.abs(ours - theirs).max(initial=0.0) for ours, theirs in zip(expected, received, strict=True)], np.float64)
    return np.where(np.isfinite(apart), apart, np.inf)


def keras_answers(model: keras.Model, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the model's outputs for one batch, flat, float32."""
    structured = keras_graph.structured_inputs(model, [tf.convert_to_tensor(array) for array in batch])
    return [np.asarray(output, np.float32) for output in keras.tree.flatten(model(structured, training=False))]


class _Tally:
    """Collects differences over batches."""

    def __init__(self, model: keras.Model, content: bytes, optimize_for: str):
        self._model, self._optimize_for = model, optimize_for
        self._rounded = min((quantizer.bits for quantizer in activation_quantizers(model)), default=None)
        # Where activations are 8-bit integers in the file alone, every value may differ by a step.
        follows = optimize_for == "size" and self._rounded
        self._followers = {xnnpack: _Follower(model, content, xnnpack) for xnnpack in (True, False)} if follows else {}
        outputs = len(model.outputs)
        self.difference, self.unexplained, self.scale, self.equal, self.compared = np.zeros((5, outputs))
        self.squares = np.zeros((2, outputs, 2))
        self._columns = [ColumnRanges(model, number) for number in range(outputs)] if optimize_for == "integer" else []

    def add(self, batch: Sequence[np.ndarray], received: Sequence[np.ndarray], xnnpack: bool) -> None:
        expected = keras_answers(self._model, batch)
        shapes, wanted = ([np.shape(output) for output in outputs] for outputs in (received, expected))
        if shapes != wanted:
            raise RuntimeError(f"its answers have the shapes {shapes}, the model's {wanted}.")
        self.scale = np.maximum(self.scale, [np.abs(ours).max(initial=0.0) for ours in expected])
        apart = _largest_differences(expected, received)
        self.difference = np.maximum(self.difference, apart)
        if self._followers and not (apart <= _tolerance(self._optimize_for, self.scale)).all():
            apart = self._followers[xnnpack].differences(batch)
        self.unexplained = np.maximum(self.unexplained, apart)
        if xnnpack:
            for columns, ours, theirs in zip(self._columns, expected, received, strict=False):
                columns.add(ours, theirs)
        for number, (ours, theirs) in enumerate(zip(expected, received, strict=True)):
            self.squares[int(xnnpack), number] += np.square(ours - theirs, dtype=np.float64).sum(), np.square(ours, dtype=np.float64).sum()
            # The examples of the built-in kernels are among those of XNNPACK.
            if xnnpack and ours.ndim >= 2 and ours.shape[-1] > 1:
                same = ours.argmax(-1) == theirs.argmax(-1)
                self.equal[number], self.compared[number] = self.equal[number] + same.sum(), self.compared[number] + same.size

    def parity(self, examples: int, generated: bool, allowed: float | None, judge_top1: bool = True) -> Parity:
        ratios = self.squares[..., 0] / np.maximum(self.squares[..., 1], np.finfo(np.float64).tiny)
        rms = float(np.sqrt(ratios).max()) if np.isfinite(ratios).all() else float("inf")
        with np.errstate(invalid="ignore"):
            beyond = self.unexplained / _tolerance(self._optimize_for, self.scale)
        worst = int(np.argmax(beyond if beyond.any() else self.difference))
        agreement = np.divide(self.equal, self.compared, out=np.ones_like(self.equal), where=self.compared > 0)
        mistakes = self.compared - self.equal - _mistakes_allowed(_limits(self._optimize_for, self._rounded), self.compared)
        least = min(range(len(agreement)), key=lambda number: (-max(0.0, mistakes[number]), agreement[number]))
        ties = sum(follower.ties for follower in self._followers.values())
        return Parity(
            max_abs_diff=float(self.difference[worst]),
            logit_scale=float(self.scale[worst]),
            agreement=float(agreement[least]),
            examples=examples,
            generated=generated,
            unexplained_diff=float(self.unexplained[worst]),
            rms=rms,
            optimize_for=self._optimize_for,
            compared=int(self.compared[least]),
            allowed=allowed,
            ties=ties,
            rounded=self._rounded,
            judges_top1=judge_top1 and not generated and allowed is None,
            constant=tuple(found for columns in self._columns if (found := columns.constant())),
        )


def few_inputs(model: keras.Model, data) -> list[np.ndarray]:
    """Returns a few of the inputs for a closer look; random ones where the data were only there once."""
    once = isinstance(data, Iterator)
    return _few(model, next(input_batches(model, None if once else data)))


def _few(model: keras.Model, batch: list[np.ndarray]) -> list[np.ndarray]:
    return batch if model.inputs[0].shape[0] else [array[:_GENERATED] for array in batch]


def input_batches(model: keras.Model, data, batch_size: int = 32, what: str = "verify_with") -> Iterator[list[np.ndarray]]:
    """Yields batches of the model's inputs, flat, from arrays, a `tf.data.Dataset` or a Keras data set; random ones from `None`.

    Raises:
        ValueError: a batch does not fit the model's inputs; `what` names the argument that it came from.
    """
    if _is_endless(data):
        raise ValueError(f"The data in {what} are endless. Received: {data!r}. Give a part of them, such as data.take(10).")
    if data is None:
        yield _checked(model, _random_inputs(model), what)
    elif isinstance(data, (tf.data.Dataset, keras.utils.PyDataset)) or _is_batches(data):
        for batch in data:
            yield from _of_fixed_size(model, _checked(model, _inputs_of(model, batch), what))
    else:
        arrays = _checked(model, [np.asarray(array) for array in keras_graph.flat_inputs(model, data)], what)
        if model.inputs[0].shape[0]:
            yield from _of_fixed_size(model, arrays)
            return
        for start in range(0, len(arrays[0]), batch_size):
            yield [array[start : start + batch_size] for array in arrays]


def _is_endless(data) -> bool:
    if isinstance(data, tf.data.Dataset):
        return data.cardinality() == tf.data.INFINITE_CARDINALITY
    return isinstance(data, keras.utils.PyDataset) and data.num_batches is None


def _is_batches(data) -> bool:
    return isinstance(data, Iterable) and not isinstance(data, (np.ndarray, tf.Tensor, Sequence, dict))


def _of_fixed_size(model: keras.Model, arrays: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Cuts a batch into those that a model of a fixed batch size takes; what is left over is left out, and so is an empty one."""
    size = model.inputs[0].shape[0] or max(1, len(arrays[0]))
    for start in range(0, len(arrays[0]) - size + 1, size):
        yield [array[start : start + size] for array in arrays]


def _inputs_of(model: keras.Model, batch) -> list[np.ndarray]:
    """A batch is inputs, (inputs, labels) or (inputs, labels, weights); several inputs may come bare where nothing is nested."""
    count = len(model.inputs)
    bare = isinstance(batch, (tuple, list)) and len(batch) == count > 1 and not any(isinstance(part, (tuple, list, dict)) for part in batch)
    inputs = batch[0] if isinstance(batch, (tuple, list)) and not bare else batch
    return [np.asarray(array) for array in keras_graph.flat_inputs(model, inputs)]


def _random_inputs(model) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    arrays = []
    for tensor in model.inputs:
        shape = [model.inputs[0].shape[0] or _GENERATED, *(size or _OPEN for size in tensor.shape[1:])]
        whole = "int" in keras.backend.standardize_dtype(tensor.dtype)
        values = generator.integers(0, 2, shape) if whole else generator.standard_normal(shape)
        arrays.append(values.astype(keras.backend.standardize_dtype(tensor.dtype)))
    return arrays


def _checked(model, arrays: list[np.ndarray], what: str) -> list[np.ndarray]:
    wanted, given = [tuple(tensor.shape) for tensor in model.inputs], [array.shape for array in arrays]
    arrays = [in_rank(array, shape) for array, shape in zip(arrays, wanted, strict=True)] if len(arrays) == len(wanted) else arrays
    fits = len(arrays) == len(wanted) and len({len(array) for array in arrays if array.ndim}) == 1
    fits = fits and all(
        array.ndim == len(shape) and all(size in (None, have) for size, have in zip(shape[1:], array.shape[1:], strict=True))
        for array, shape in zip(arrays, wanted, strict=True)
    )
    if not fits:
        raise ValueError(f"The inputs in {what} do not fit model '{model.name}', which takes {wanted}. Received: {given}.")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"The inputs in {what} for model '{model.name}' hold NaN or infinite values. Clean them first.")
    # Pixels are often whole numbers where the model takes floats.
    return [array.astype(keras.backend.standardize_dtype(tensor.dtype), copy=False) for array, tensor in zip(arrays, model.inputs, strict=True)]
