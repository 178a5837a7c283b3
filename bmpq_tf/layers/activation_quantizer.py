"""The state of one activation quantizer: the range that it started with, and its learned clip."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf.arithmetic import activations
from bmpq_tf.layers.config import checked_activation_bits
from bmpq_tf.layers.serialization import serializable

# The range of a quantizer that saw no training batch; one that saw zeros only has a clip of 0.
_NONE = (-1.0, 0.0)


@serializable
class ActivationQuantizer(keras.layers.Layer):
    """Rounds activations to `2^a - 1` steps of a learned range (METHOD.md, "Activations").

    The range starts as the best for the first training batch
    (`bmpq_tf.arithmetic.activations.first_range`), and then its width is learned:
    `clip = base * exp(log_clip)`, positive whatever the optimizer does. The zero point stays
    where the first batch put it. Before any training batch, every batch is rounded in its own best
    range and nothing is kept. All arithmetic is float32, whatever the dtype policy.

    Args:
        bits: the width `a`: 16, 8, 4 or 2.
        signed: whether the range may reach below zero; PACT's starts there. At 16 bits it always
            does.
        limit: the largest value, such as ReLU6's 6, any real number; `None` for none.
        **kwargs: `keras.layers.Layer`'s own.

    Attributes:
        first_range: variable of shape (2,), the clip and the zero point that the first training
            batch sets; zeros until then.
        log_clip: scalar variable, trained.
        rounding: what rounds, `tf.round`; the export's comparison replaces it for a while.
        stand_in: what a conversion has in the place of the whole quantizer, or `None`.

    Raises:
        ValueError: the width is not 16, 8, 4 or 2.
    """

    def __init__(self, bits: int, *, signed: bool = False, limit: float | None = None, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        checked = checked_activation_bits(bits)
        if checked is None:
            raise ValueError(
                "An activation quantizer needs a width. Received: bits=None. Give 16, 8, 4 or 2, "
                "or leave the quantizer out."
            )
        # As plain floats, since neither tensors nor files take what people write for them.
        self.bits, self.signed = checked, bool(signed)
        self.limit = None if limit is None else float(limit)
        self.rounding: Callable[[tf.Tensor], tf.Tensor] = tf.round
        self.stand_in: Callable[[tf.Tensor], tf.Tensor] | None = None
        self._fixed: tuple[tf.Tensor, tf.Tensor] | None = None

    def build(self, input_shape=None):
        def state(name, shape, aggregation, value: Any = 0.0):
            return self.add_weight(
                name=name,
                shape=shape,
                initializer=keras.initializers.Constant(value),
                trainable=aggregation == "mean",
                autocast=False,
                aggregation=aggregation,
            )

        # One variable, since operations on scalars take time too. Replicas see other first batches;
        # a mean of zero points would be none.
        self.first_range = state("first_range", (2,), "only_first_replica", _NONE)
        self.log_clip = state("log_clip", (), "mean")

    def call(self, values, training=None, before: Callable | None = None):
        """Returns the values on the grid, in their own dtype; integers as they are.

        The first training batch sets the range.

        Args:
            values: a tensor of any shape.
            training: whether this is a training step.
            before: what comes before the quantizer and changes nothing inside its range, as a ReLU
                does. Training leaves it out, because clipping does the same.
        """
        values = tf.convert_to_tensor(values)
        is_rounded = values.dtype.is_floating
        if before is not None and not (training and self.stand_in is None and is_rounded):
            values = before(values)
        if not is_rounded:
            return values
        exact = tf.cast(values, tf.float32)
        if self.stand_in is not None:
            return tf.cast(self.stand_in(exact), values.dtype)
        if self._fixed:
            return tf.cast(
                activations.fake_quantize(exact, *self._fixed, self.bits, self.rounding),
                values.dtype,
            )
        first_range = activations.range_of(
            tf.convert_to_tensor(self.first_range.value), exact, self.bits, self.signed, self.limit
        )

        def keep():
            self.first_range.assign(first_range)

        if training:
            keep()
        # A subclassed model may pass no `training` on, or call a part with False; that it trains
        # shows in the gradient.
        unsaid = None if training else keep
        base, zero_point = tf.unstack(first_range)
        clip = self._learned(base, self._gradient_share(exact))
        if not (self.signed or activations.is_symmetric(self.bits)):
            zero_point = None
        # Files round halves to even; in training nobody compares, and speed counts.
        rounding = None if training and self.rounding is tf.round else self.rounding
        return tf.cast(
            activations.fake_quantize(exact, clip, zero_point, self.bits, rounding, unsaid),
            values.dtype,
        )

    def clip(self) -> tf.Tensor:
        """Returns `alpha`, the width of the learned range, a positive float32 scalar; without a
        range, that of 1.
        """
        base = tf.convert_to_tensor(self.first_range.value)[0]
        return self._learned(tf.where(base > 0, base, 1.0))

    @property
    def zero_point(self) -> int:
        """How many steps of the range lie below zero."""
        return round(float(self.first_range.numpy()[1]))

    @property
    def has_range(self) -> bool:
        """Whether a training batch has set the range; one of zeros does not."""
        return bool(self.first_range.numpy()[0] > 0)

    def freeze(self, is_trained: bool = False) -> None:
        """Makes the range a constant, for conversion.

        Args:
            is_trained: whether the model was trained: what saw zeros only then has no range, and
                they are zeros in any.

        Raises:
            ValueError: no training batch has set the range yet.
        """
        saw_none = self.first_range.numpy()[0] < 0
        if saw_none or not (self.has_range or is_trained):
            raise ValueError(
                f"Activation quantizer '{self.path}' has no range yet, since it saw no training "
                "batch. Train the model first, if only for a step; a part that is frozen and "
                "called with training=False sees none."
            )
        self._fixed = (
            tf.constant(self.clip().numpy()),
            tf.constant(float(self.zero_point)),
        )

    def thaw(self) -> None:
        """Undoes `freeze`, and whatever stood in for the rounding."""
        self._fixed, self.stand_in, self.rounding = None, None, tf.round

    def _gradient_share(self, values) -> float | tf.Tensor:
        """`1 / sqrt(n * steps)` for `n` values an example, after LSQ.

        The clip sums the gradients of all, and would outrun the weights.

        With the whole sum, SGD at rate 0.1 shrank the clip before a 2-bit ResNet-20's classifier
        until every value was cut off, for good.
        """
        levels = activations.steps(self.bits)
        if values.shape[1:].is_fully_defined():
            return (max(values.shape[1:].num_elements(), 1) * levels) ** -0.5
        number = tf.reduce_prod(tf.shape(values, out_type=tf.int64)[1:])
        return tf.math.rsqrt(tf.cast(number * levels, tf.float32))

    def _learned(self, base, gradient_share: float | tf.Tensor = 1.0) -> tf.Tensor:
        # The clip is the width of the range, of which a symmetric one has half above zero.
        sides = 1 + activations.is_symmetric(self.bits)
        limit = None if self.limit is None else sides * self.limit
        log_clip = tf.convert_to_tensor(self.log_clip.value)
        return activations.learned_clip(log_clip, base, gradient_share, limit)

    def load_own_variables(self, store):
        # Files of before 0.2.0 hold the first range in three variables.
        if len(store.keys()) == 4:
            log_clip, base, zero_point, observed = (np.asarray(store[str(i)]) for i in range(4))
            store = {"0": log_clip, "1": np.stack([base, zero_point]) * (observed > 0)}
        super().load_own_variables(store)

    def get_config(self):
        return {
            **super().get_config(),
            "bits": self.bits,
            "signed": self.signed,
            "limit": self.limit,
        }
