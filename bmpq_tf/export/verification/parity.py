"""Does the file answer as the Keras model does?"""

import dataclasses

import numpy as np

from bmpq_tf.export.verification.constant_columns import ConstantColumns, in_words

TOLERANCE = 1e-4
# Sums whose terms cancel are rounded in float32 by more than a share of what is left of them; below
# this size of outputs that is allowed for.
_FLOOR = 0.01


@dataclasses.dataclass(frozen=True)
class Limits:
    """What counts as an answer that is still the model's.

    Attributes:
        largest: the largest difference, relative to the largest output, or to 0.01 where that is
            smaller; `None` where rounding of activations makes single values drift.
        rms: the root mean square of the differences relative to that of an output.
        agreement: the share of equal top-1 that inputs of the user's must reach, or of equal
            labels; two positions may always differ.
    """

    largest: float | None
    rms: float
    agreement: float


# "size" computes as Keras does. Rounding every activation to 8 bits moves an output by a few
# percent of its spread.
LIMITS = {
    "size": Limits(TOLERANCE, TOLERANCE, 0.0),
    "latency": Limits(None, 0.1, 0.9),
    "integer": Limits(None, 0.2, 0.8),
}
# The share of equal labels in "size" files, where top-1 needs no limit beside that of the values.
_EQUAL_LABELS = 0.99
# "integer" where Keras rounds activations too, by their narrowest width. The file then rounds to
# the same steps; what is left are values at an edge that go the other way, each by a step, and the
# tensors between two quantizers. Small residual networks: 0.012, 0.064, 0.23; a MobileNet of 27
# layers 0.03 at 8 bits, 0.04 for TFLM.
ROUNDED_LIMITS = {
    # What is left are biases, tables of functions, and sums of rounding errors.
    16: Limits(None, 0.01, 0.95),
    8: Limits(None, 0.05, 0.9),
    4: Limits(None, 0.15, 0.9),
    2: Limits(None, 0.4, 0.85),
}


@dataclasses.dataclass(frozen=True)
class Parity:
    """How close two models' outputs are.

    Where there are several, each is judged by itself, and each figure is that of the worst.

    Attributes:
        max_abs_diff: the largest difference of an output value.
        logit_scale: the largest value of that output of the Keras model.
        agreement: the share of equal positions of the largest value (top-1); 1 where `compared` is
            0, as for outputs of one value.
        examples: how many were compared.
        generated: whether the inputs were random, for want of better ones.
        rms: the root mean square of the differences, relative to that of the output.
        optimize_for: the kind of file, which sets the limits.
        compared: how many positions the agreement counts.
        allowed: the user's own limit of `rms`, or `None`.
        unexplained_diff: in `"size"`, the largest difference that is left once Keras has taken
            LiteRT's side at the edges between two steps of an activation
            (`bmpq_tf.export.verification.rounding_ties`); `max_abs_diff` where activations are
            float.
        ties: how many values those were, in the batches where they moved an answer.
        near_ties: how many positions of another top-1 do not count, since Keras's probabilities
            there are at most one step of an int8 output apart, which cannot tell them from each
            other.
        departed: where what is left starts, in words: the first rounding that the file does in
            another way than Keras, for another reason than an edge.
        rounded: the narrowest width that the model rounds activations to, or `None`.
        mostly_trained: whether at least as many of an integer file's operators have kernels as
            compute between the model's quantizers, on grids of calibration.
        judges_top1: whether the agreement must reach its limit: on inputs that the user gave to
            verify with; everywhere in `"size"`, and by a limit of his own.
        labels: whether the agreement is the share of equal labels: integers or truth values, of
            which nothing else is judged.
        constant: in `"integer"`, columns of outputs in which the file answers one single value and
            Keras does not.

    Example:
        >>> report = bmpq_tf.export_tflite(model, folder / "model.tflite", verify_with=images)
        >>> parity = report.parity
        >>> parity.examples, parity.agreement, parity.max_abs_diff <= parity.tolerance
        (32, 1.0, True)
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
    near_ties: int = 0
    departed: str = ""
    rounded: int | None = None
    mostly_trained: bool = True
    judges_top1: bool = True
    labels: bool = False
    constant: tuple[ConstantColumns, ...] = ()

    def __str__(self) -> str:
        inputs = f"{self.examples:,} {'random inputs' if self.generated else 'inputs'}"
        if self.labels:
            return f"labels equal to Keras's on {self.agreement:.2%} of {inputs}"
        apart = f"largest difference {self.max_abs_diff:.2g} of {self.logit_scale:.3g}"
        # Outputs of one value have no top-1.
        if not self.compared:
            return f"{apart} on {inputs}"
        return f"top-1 equal to Keras on {self.agreement:.2%} of {inputs}, {apart}"

    @property
    def caution(self) -> str:
        """What is no reason to refuse the file, but to look at it again, in words, or nothing."""
        return in_words(self.constant, self.examples)

    @property
    def limits(self) -> Limits:
        """What is allowed for this kind of file and model, unless the user says so."""
        return limits_of(self.optimize_for, self.rounded, self.mostly_trained)

    @property
    def _allows(self) -> str:
        """Who set the limit of the root mean square, in words."""
        if self.allowed is not None:
            return "tolerance= allows"
        trained = ROUNDED_LIMITS.get(self.rounded or 0)
        bits = self.rounded if self.limits is trained else 8
        return f'optimize_for="{self.optimize_for}" allows for {bits}-bit activations'

    @property
    def rms_limit(self) -> float:
        """The relative root mean square that is allowed."""
        return self.limits.rms if self.allowed is None else self.allowed

    @property
    def tolerance(self) -> float:
        """The largest difference that counts as rounding; infinite where the mean decides."""
        return float(tolerance_of(self.optimize_for, np.float64(self.logit_scale)))

    @property
    def _in_words(self) -> str:
        return f"; top-1 agreement {self.agreement:.4f}" if self.compared else ""

    @property
    def problem(self) -> str:
        """What is beyond the limits, in words, or nothing. NaN is beyond all of them."""
        limits = self.limits
        if not np.isfinite(self.max_abs_diff):
            return (
                f"LiteRT answers NaN or infinity, or Keras does, on some of {self.examples} "
                "examples."
            )
        if self.allowed is None and self.unexplained_diff > self.tolerance:
            return (
                f"LiteRT's answers differ from Keras's by up to {self.unexplained_diff:.3g} on "
                f"{self.examples} examples, more than the "
                f"{self.tolerance:.3g} that rounding explains{self._in_words}."
                + f" {self.departed}"
                * bool(self.departed)
                + f" The root mean square of the differences is {self.rms:.3g} of the answers' "
                "size; if that is close enough for you, say so with tolerance=."
            )
        if (limits.largest is None or self.allowed is not None) and self.rms > self.rms_limit:
            return (
                f"LiteRT's answers differ from Keras's by {self.rms:.3g} of their size (root mean "
                f"square, {self.examples} examples), more than the {self.rms_limit:g} that "
                f"{self._allows}"
                f"{self._in_words}. If that is close enough for you, say so with tolerance=."
                + (
                    " The inputs were random: better give inputs like those that the model "
                    "will meet, with verify_with=."
                )
                * self.generated
            )
        mistakes = round((1 - self.agreement) * self.compared) - self.near_ties
        least = float(least_agreement(limits, self.labels, self.allowed))
        if not self.judges_top1 or mistakes <= mistakes_allowed(least, self.compared):
            return ""
        must_reach = f'optimize_for="{self.optimize_for}" must reach'
        if self.labels:
            return (
                f"LiteRT's labels are Keras's for {self.agreement:.4f} of {self.examples} "
                f"examples, less than the {least:g} that "
                + ("tolerance= asks for" if self.allowed is not None else must_reach)
                + ". If more may differ, say with tolerance= which share."
            )
        return (
            f"LiteRT's top-1 is Keras's for {self.agreement:.4f} of {self.examples} examples, "
            f"less than the {least:g} that {must_reach}. If top-1 means nothing for these outputs, "
            "say with tolerance= how close they must be."
        )

    @property
    def holds(self) -> bool:
        """Whether the file answers as the model does, within the limits of its kind.

        NaN does not.
        """
        return not self.problem


def limits_of(optimize_for: str, rounded: int | None, mostly_trained: bool = True) -> Limits:
    """Returns what is allowed for a kind of file, of a model whose narrowest activation quantizer
    has `rounded` bits.

    An integer file has the limits of its trained grids where most of it lies on them, or all grids
    are as fine, at 16 bits. Otherwise, and where activations are rounded once more as they come,
    the wider of both holds: what moves by a little may move by a step of few.
    """
    usual = LIMITS[optimize_for]
    if not rounded or optimize_for == "size":
        return usual
    trained = ROUNDED_LIMITS[rounded]
    if optimize_for == "integer" and (mostly_trained or rounded == 16):
        return trained
    return max(usual, trained, key=lambda limits: limits.rms)


def least_agreement(limits: Limits, labels, allowed: float | None) -> np.ndarray:
    """Returns the share of equal top-1 that is asked for, or of equal labels.

    Args:
        limits: of the kind of file.
        labels: whether it is of labels; of each output.
        allowed: the user's own limit: of labels, the share that may differ.
    """
    if allowed is None:
        return np.where(labels, limits.agreement or _EQUAL_LABELS, limits.agreement)
    return np.where(labels, 1 - allowed, 0.0)


def mistakes_allowed(least, compared):
    """Returns how many of the compared positions may have another top-1 where this share of them
    must be equal; two always.
    """
    # 1 - 0.8 is a little less than 0.2.
    return np.maximum(2, (1 - least) * compared + 1e-6)


def tolerance_of(optimize_for: str, scale):
    """Returns the largest difference that is allowed of outputs of this size.

    Infinite where the mean decides.
    """
    largest = LIMITS[optimize_for].largest
    return np.full_like(scale, np.inf) if largest is None else largest * np.maximum(_FLOOR, scale)
