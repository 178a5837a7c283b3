"""The optimizer of the experiments: SGD with Nesterov momentum, cosine decay after a linear warm-up."""

import keras

# Decay would pull BatchNorm's parameters, biases, learned scales and clips to values that mean nothing.
NOT_DECAYED = ["gamma", "beta", "bias", "log_gain", "log_clip"]


def sgd(model: keras.Model, *, learning_rate: float, steps: int, warmup_steps: int = 0, weight_decay: float = 5e-4) -> keras.optimizers.SGD:
    """Builds the optimizer.

    Args:
        model: whose variables it will train.
        learning_rate: the peak.
        steps: of the whole run; the cosine ends there.
        warmup_steps: over which the rate rises from a tenth of the peak.
        weight_decay: of the kernels, decoupled (each step takes off `rate * decay`).
    """
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate * 0.1 if warmup_steps else learning_rate,
        decay_steps=max(1, steps - warmup_steps),
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer
