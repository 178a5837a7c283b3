"""Weights that keep jumping between two integers, noticed and held (Nagel et al., Overcoming
Oscillations in QAT, ICML 2022).

A latent weight near the edge between two integers is pushed back over it by the straight-through
gradient at every other step. An oscillation is a change of the integer against the direction of the
one before; its frequency is a moving average over steps. A weight that is held keeps the integer
that it had for most of the time.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

MOMENTUM = 0.01
# The frequency of a weight that is held: no average reaches it.
HELD = float("inf")
# The last integer before any step: no integer of 8 bits.
UNSEEN = 2.0**20


class Oscillations(NamedTuple):
    """What is known of each weight, float32 tensors of the kernel's shape.

    Attributes:
        last: its integer at the last step; `UNSEEN` before any.
        direction: the sign of the integer's last change; 0 before any.
        frequency: the moving average of oscillations, 0 to 1; `HELD` for a weight that is held.
        mean: the moving average of the integer; a whole number for a weight that is held.
    """

    last: tf.Tensor
    direction: tf.Tensor
    frequency: tf.Tensor
    mean: tf.Tensor


def first(shape) -> Oscillations:
    """Returns what is known before any step: nothing."""
    none = tf.zeros(shape)
    return Oscillations(tf.fill(shape, UNSEEN), none, none, none)


def after_step(
    before: Oscillations, integers, threshold, rounded: Callable = tf.round
) -> Oscillations:
    """Adds one step, and holds the weights whose frequency is above the threshold then.

    Args:
        before: what was known.
        integers: float32 of the kernel's shape; of weights that are held, the ones they are held
            at.
        threshold: scalar; infinity holds nothing.
        rounded: gives the nearest level, where levels are not whole.
    """
    is_first = tf.equal(before.last, UNSEEN)
    change = tf.where(is_first, 0.0, integers - before.last)
    turned = tf.cast(change * before.direction < 0.0, tf.float32)
    frequency = before.frequency + MOMENTUM * (turned - before.frequency)
    mean = tf.where(is_first, integers, before.mean + MOMENTUM * (integers - before.mean))
    was_held = tf.equal(before.frequency, HELD)
    newly_held = tf.logical_and(frequency > threshold, tf.logical_not(was_held))
    return Oscillations(
        integers,
        tf.where(change == 0.0, before.direction, tf.sign(change)),
        tf.where(tf.logical_or(was_held, newly_held), HELD, frequency),
        tf.where(was_held, before.mean, tf.where(newly_held, rounded(mean), mean)),
    )


def with_held(weights, scale, frequency, mean) -> tf.Tensor:
    """Returns the weights, those that are held in the middle of their integer's step.

    Without a gradient, but for the scale's.
    """
    return tf.where(tf.equal(frequency, HELD), scale * mean, weights)
