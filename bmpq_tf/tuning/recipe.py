"""Optimizers and learning rates of trials and experiments; saved models name these classes."""

from typing import Any

import keras

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
