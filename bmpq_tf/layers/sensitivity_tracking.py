"""The part of a kernel's quantizer that accumulates bit gradients while a model trains (METHOD.md,
"Bit gradients").
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf.arithmetic import scales, sums
from bmpq_tf.layers.config import QuantizerConfig


class Accumulated(NamedTuple):
    """Sums over the finite mini-batches since the last reset.

    Attributes:
        gradient_abs, gradient_square: of the mean `|g|` and `g^2` of each output channel, float32
            of the kernel's shape with every other axis 1.
        bit_gradient: of NBG.
        uses_finite, uses_seen: how often a gradient was finite, and how often one arrived.
    """

    gradient_abs: np.ndarray
    gradient_square: np.ndarray
    bit_gradient: float
    uses_finite: float
    uses_seen: float


def accumulator(
    layer: keras.layers.Layer, name: str, shape=(), aggregation: str = "sum", value: float = 0.0
) -> keras.Variable:
    """Returns a variable that every replica adds to by itself, for `layer` to hold.

    Not `add_weight`, which cannot say on_read: replicas would have to agree in the middle of a
    gradient.
    """
    with keras.name_scope(layer.name, caller=layer):
        return keras.Variable(
            keras.initializers.Constant(value),
            shape,
            "float32",
            trainable=False,
            autocast=False,
            aggregation=aggregation,
            synchronization="on_read",
            name=name,
        )


# A mixin: Keras's class comes behind it.
_Layer = keras.layers.Layer if TYPE_CHECKING else object


class SensitivityTracking(_Layer):
    """Sums of bit gradients over mini-batches, in variables, without the loss scale that they
    carry.
    """

    config: QuantizerConfig
    channel_axes: tuple[int, ...]
    _channels_shape: tuple[int, ...]

    def _start_tracking(self) -> None:
        self._scale_loss: Callable[[tf.Tensor], tf.Tensor] | None = None
        self._traced_with: tuple = ()

    def _build_sums(self, kernel_shape) -> None:
        self.gradient_sums = accumulator(
            self, "gradient_sums", (2 * math.prod(self._channels_shape) + 2,)
        )
        self.uses_seen = accumulator(self, "uses_seen")
        if self.config.track_sensitivity == "joint":
            self.weight_gradient_abs_sum = accumulator(
                self, "weight_gradient_abs_sum", tuple(kernel_shape)
            )

    def accumulated(self) -> Accumulated:
        """Reads what mini-batches have added since the last reset."""
        sums_of_gradient = tf.convert_to_tensor(self.gradient_sums.value).numpy()
        of_abs, of_square, rest = np.split(sums_of_gradient, [math.prod(self._channels_shape), -2])
        return Accumulated(
            of_abs.reshape(self._channels_shape),
            of_square.reshape(self._channels_shape),
            float(rest[0]),
            float(rest[1]),
            float(tf.convert_to_tensor(self.uses_seen.value)),
        )

    def reset_accumulators(self) -> None:
        """Forgets the bit gradients so far, as after every allocation."""
        joint = [self.weight_gradient_abs_sum] if self.config.track_sensitivity == "joint" else []
        for variable in (self.gradient_sums, self.uses_seen, *joint):
            variable.assign(tf.zeros(variable.shape))

    def follow_loss_scale(self, optimizer: keras.optimizers.Optimizer | None) -> bool:
        """Divides gradients from now on by what `optimizer` multiplies the loss by (`None`: by
        nothing).

        Returns:
            Whether a step was traced already that does otherwise. It must be traced anew; what it
            summed up is forgotten.
        """
        # Bound methods of one object are equal.
        self._scale_loss = None if optimizer is None else optimizer.scale_loss
        stale = bool(self._traced_with) and self._traced_with != (self._scale_loss,)
        if stale:
            self.reset_accumulators()
        return stale

    def forget_loss_scale(self) -> None:
        """Lets go of the optimizer: steps that are traced from now on may be another one's."""
        self._scale_loss = None

    def _accumulate(self, gradient, scale, bits) -> list[tf.Tensor]:
        """Adds one mini-batch, and returns the sums that it took.

        What is not finite adds nothing, decided on the device.
        """
        gradient, factor = tf.cast(gradient, tf.float32), self._loss_factor()
        axes = scales.reduced_axes(len(gradient.shape), self.channel_axes)
        # Before the squares, which a large loss scale would overflow.
        if tf.is_tensor(factor) or factor != 1.0:
            gradient = gradient / factor
        magnitude = tf.abs(gradient)
        of_abs = sums.by_channel(magnitude, axes)
        with tf.control_dependencies([of_abs]):
            of_square = sums.by_channel(tf.square(gradient), axes)
        count = float(math.prod(gradient.shape[axis] for axis in axes))
        # sum_i |dL/db_i| = (2^N - 1) S |g|, so no bit plane is needed.
        of_bits = (
            (tf.pow(2.0, bits) - 1.0)
            / bits
            * tf.reduce_mean(tf.reshape(scale, [-1]) * of_abs, keepdims=True)
        )
        added = tf.concat([of_abs, of_square, of_bits, [count]], 0) / count
        finite = tf.cast(tf.math.is_finite(tf.reduce_sum(added)), tf.float32)
        self.gradient_sums.value.assign_add(tf.math.multiply_no_nan(added, finite))
        self.uses_seen.value.assign_add(1.0)
        if self.config.track_sensitivity == "joint":
            self.weight_gradient_abs_sum.value.assign_add(
                tf.math.multiply_no_nan(magnitude, finite)
            )
        return [of_square]

    def _loss_factor(self):
        """What the gradients carry: the loss scale, and a replica's share in the mean over all of
        them (as Keras scales a loss).
        """
        self._traced_with = (self._scale_loss,)
        scale = 1.0 if self._scale_loss is None else self._scale_loss(tf.ones(()))
        return scale / tf.distribute.get_strategy().num_replicas_in_sync


def with_joined_sums(values: Mapping[str, np.ndarray], first: int) -> dict[str, np.ndarray]:
    """Reads files of formats 1 to 4: there each sum is a variable, from place `first` on."""
    listed = [np.asarray(values[str(place)]) for place in range(len(values))]
    of_bits, of_abs, of_square, seen, finite = listed[first : first + 5]
    joined = np.concatenate([np.ravel(part) for part in (of_abs, of_square, of_bits, finite)])
    return {
        str(place): value
        for place, value in enumerate([*listed[:first], joined, seen, *listed[first + 5 :]])
    }
