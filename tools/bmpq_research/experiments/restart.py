"""The learning rate rises again after an allocation that changed widths, so that kernels can leave
what suited their old ones.
"""

import keras

from bmpq_research.experiments.changes import last_change
from bmpq_tf.model.kernels import allocation_history
from bmpq_tf.tuning import recipe


class RestartRate(keras.callbacks.Callback):
    """Tells a `Restarted` rate of the last allocation that changed widths.

    It comes after the callback that allocates.

    It reads the model's own history, so a resumed run goes on at the rate that it had.

    Args:
        rate: the optimizer's schedule.
        steps: of one epoch.
    """

    def __init__(self, rate: recipe.Restarted, steps: int):
        super().__init__()
        self.rate, self.steps = rate, steps

    def on_epoch_begin(self, epoch, logs=None):
        changed = last_change(allocation_history(self.model))
        if changed is not None:
            self.rate.start.assign(changed * self.steps)
