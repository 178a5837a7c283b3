"""Optimizers and learning rates of trials and experiments; saved models name these classes."""

import math
from typing import Any

import keras
import tensorflow as tf

from bmpq_tf.arguments import check_known

# Decay would pull BatchNorm's parameters, biases, learned scales and clips to values that mean
# nothing.
NOT_DECAYED = ["gamma", "beta", "bias", "log_gain", "log_clip"]


SCHEDULES = ("cosine", "step")


def learning_rate(
    peak: float, steps: int, warmup_steps: int = 0, schedule: str = "cosine"
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the schedule of a run.

    Args:
        peak: the learning rate after the warm-up.
        steps: of the whole run; the cosine ends there.
        warmup_steps: over which the rate rises from a tenth of the peak.
        schedule: `"cosine"`, or `"step"`: a tenth of the rate after half of the steps and again
            after three quarters.

    Raises:
        ValueError: the schedule is not known.
    """
    check_known("schedule", schedule, SCHEDULES)
    if schedule == "step":
        return StepDecay(peak, [steps // 2, steps * 3 // 4], warmup_steps)
    return keras.optimizers.schedules.CosineDecay(
        peak * 0.1 if warmup_steps else peak,
        decay_steps=max(1, steps - warmup_steps),
        warmup_target=peak if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def sgd(rate, weight_decay: float = 5e-4) -> keras.optimizers.SGD:
    """Returns SGD that decays the kernels and nothing else; `rate` is a number or a schedule."""
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer


@keras.saving.register_keras_serializable("bmpq_tf")
class StepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A tenth of the rate from each boundary on, after a warm-up that rises from a tenth of the
    peak; Keras's has no warm-up.

    Args:
        peak: the rate after the warm-up.
        boundaries: steps at which the rate falls.
        warmup_steps: over which it rises.
    """

    def __init__(self, peak: float, boundaries: list[int], warmup_steps: int = 0):
        super().__init__()
        self.peak, self.boundaries, self.warmup_steps = peak, boundaries, warmup_steps

    def __call__(self, step):
        ops: Any = keras.ops
        step = ops.cast(step, "float32")
        falls = sum(ops.cast(step >= boundary, "float32") for boundary in self.boundaries)
        risen = (
            ops.minimum(1.0, 0.1 + 0.9 * step / max(1, self.warmup_steps))
            if self.warmup_steps
            else 1.0
        )
        return self.peak * risen * 0.1**falls

    def get_config(self):
        return {"peak": self.peak, "boundaries": self.boundaries, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable("bmpq_tf")
class Restarted(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule, or a cosine from the last restart to the last step, whichever is higher.

    Args:
        schedule: the rate without restarts.
        rate: that the cosine starts from.
        steps: of the whole run.
        start: the step of the last restart; negative before any.

    Attributes:
        start: scalar variable, so that a restart needs no new trace.
    """

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        rate: float,
        steps: int,
        start: float = -1.0,
    ):
        super().__init__()
        self.schedule, self.rate, self.steps = schedule, rate, steps
        self.start = tf.Variable(start, dtype=tf.float32, trainable=False)  # pyright: ignore[reportArgumentType]

    def __call__(self, step):
        step, start = tf.cast(step, tf.float32), tf.convert_to_tensor(self.start)
        done = tf.clip_by_value((step - start) / tf.maximum(self.steps - start, 1.0), 0.0, 1.0)
        again = 0.5 * self.rate * (1.0 + tf.cos(math.pi * done))
        rate = self.schedule(step)
        return tf.where(start < 0.0, rate, tf.maximum(rate, again))

    def get_config(self):
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {
            "schedule": schedule,
            "rate": self.rate,
            "steps": self.steps,
            "start": float(self.start),
        }

    @classmethod
    def from_config(cls, config):
        return cls(
            **{**config, "schedule": keras.saving.deserialize_keras_object(config["schedule"])}
        )
