"""The recipe of the experiments: the optimizer with restarts."""

import keras

from bmpq_research.experiments.restart import Restarted
from bmpq_tf.tuning import recipe


def sgd(
    *,
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    weight_decay: float = 5e-4,
    schedule: str = "cosine",
    restart: float = 0.0,
) -> keras.optimizers.SGD:
    """Builds the optimizer of the experiments: the library's recipe, with restarts where asked for.

    Args:
        learning_rate, steps, warmup_steps, schedule: as `bmpq_tf.tuning.recipe.learning_rate` takes
            them.
        weight_decay: of the kernels, decoupled (each step takes off `rate * decay`).
        restart: share of the peak that the rate rises to at a restart (`Restarted`, whom
            `RestartRate` tells); 0: there are none.

    Raises:
        ValueError: the schedule is not known, or the share is not from 0 to 1.
    """
    if not 0 <= restart <= 1:
        raise ValueError(
            "restart is a share of the peak learning rate, from 0 to 1. Received: "
            f"restart={restart}."
        )
    rate = recipe.learning_rate(learning_rate, steps, warmup_steps, schedule)
    return recipe.sgd(
        Restarted(rate, restart * learning_rate, steps) if restart else rate, weight_decay
    )
