"""The learning rate rises again after an allocation that changed widths, so that kernels can leave
what suited their old ones.
"""

import math

import keras
import tensorflow as tf

from bmpq_research.experiments.changes import last_change
from bmpq_tf.model.kernels import allocation_history


@keras.saving.register_keras_serializable("bmpq_research")
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


class RestartRate(keras.callbacks.Callback):
    """Tells a `Restarted` rate of the last allocation that changed widths.

    It comes after the callback that allocates.

    It reads the model's own history, so a resumed run goes on at the rate that it had.

    Args:
        rate: the optimizer's schedule.
        steps: of one epoch.
    """

    def __init__(self, rate: Restarted, steps: int):
        super().__init__()
        self.rate, self.steps = rate, steps

    def on_epoch_begin(self, epoch, logs=None):
        changed = last_change(allocation_history(self.model))
        if changed is not None:
            self.rate.start.assign(changed * self.steps)
