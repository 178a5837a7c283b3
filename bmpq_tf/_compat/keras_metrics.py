"""Keras's metrics from inside, as of Keras 3.15; tested as `keras.py` is."""

import keras

_DIRECTIONS = {"up": "max", "down": "min"}


def direction(metric: keras.Metric) -> str | None:
    """Returns which way Keras's callbacks take a metric to be better: `"max"` or `"min"`, or `None`
    where they do not know.
    """
    return _DIRECTIONS.get(getattr(metric, "_direction", ""))
