"""The part of a kernel's quantizer that watches for weights that keep jumping between two integers,
and holds them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from bmpq_tf.arithmetic import oscillations
from bmpq_tf.layers.config import QuantizerConfig
from bmpq_tf.layers.sensitivity_tracking import accumulator

# A mixin: Keras's class comes behind it.
_Layer = keras.layers.Layer if TYPE_CHECKING else object


class OscillationTracking(_Layer):
    """What is known of each weight's jumps, in variables of the kernel's shape
    (`bmpq_tf.arithmetic.oscillations`).
    """

    config: QuantizerConfig
    freezing_threshold: keras.Variable

    def _build_oscillations(self, kernel_shape) -> None:
        # Weights are the same on every replica, and so is this.
        starts = (
            ("last_integers", oscillations.UNSEEN),
            ("last_direction", 0.0),
            ("turn_frequency", 0.0),
            ("mean_integers", 0.0),
        )
        self.last_integers, self.last_direction, self.turn_frequency, self.mean_integers = (
            accumulator(self, name, tuple(kernel_shape), "only_first_replica", value)
            for name, value in starts
        )

    def release_oscillating(self) -> None:
        """Forgets which weights oscillated and lets go of those that are held."""
        if self.config.track_oscillations:
            for variable, value in zip(
                self._oscillations(), oscillations.first(self.turn_frequency.shape), strict=True
            ):
                variable.assign(value)

    def _with_held(self, kernel, scale):
        if not self.config.track_oscillations:
            return kernel
        return oscillations.with_held(
            kernel, scale, self.turn_frequency.value, self.mean_integers.value
        )

    def _watch(self, integers, rounded: Callable) -> None:
        """Adds one step to what is known of oscillations.

        Args:
            integers: of the kernel; half ones where levels lie between.
            rounded: gives the nearest level.
        """
        known = oscillations.Oscillations(
            *(tf.convert_to_tensor(variable.value) for variable in self._oscillations())
        )
        after = oscillations.after_step(
            known, integers, tf.convert_to_tensor(self.freezing_threshold.value), rounded
        )
        for variable, value in zip(self._oscillations(), after, strict=True):
            variable.value.assign(value)

    def _oscillations(self) -> tuple[keras.Variable, ...]:
        return self.last_integers, self.last_direction, self.turn_frequency, self.mean_integers
