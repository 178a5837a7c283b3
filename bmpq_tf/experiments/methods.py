"""The methods that a comparison knows: how each turns the float model that all start from into what is trained."""

import dataclasses
from collections.abc import Callable

import keras

from bmpq_tf.callbacks import BMPQCallback
from bmpq_tf.experiments.training import TrainConfig, allocation_callback
from bmpq_tf.quantize import quantize_model

UNIFORM_WIDTHS = (8, 4, 3, 2)


@dataclasses.dataclass(frozen=True)
class Method:
    """How a method trains.

    Attributes:
        build: takes the float model and the configuration; returns the model to train, and its allocating callback if any.
        takes_budget: whether it is told what the model may take.
    """

    build: Callable[[keras.Model, TrainConfig], tuple[keras.Model, BMPQCallback | None]]
    takes_budget: bool


def _float32(model: keras.Model, config: TrainConfig):
    return model, None


def _uniform(bits: int):
    def build(model: keras.Model, config: TrainConfig):
        # First and last stay at 8 bits, as they do under every method.
        return quantize_model(model, bits, scale=config.scale, granularity=config.granularity), None

    return build


def _allocated(sensitivity: str):
    def build(model: keras.Model, config: TrainConfig):
        quantized = quantize_model(model, config.candidate_bits, scale=config.scale, granularity=config.granularity)
        return quantized, allocation_callback(dataclasses.replace(config, sensitivity=sensitivity))

    return build


METHODS: dict[str, Method] = {
    "float32": Method(_float32, takes_budget=False),
    **{f"uniform{bits}": Method(_uniform(bits), takes_budget=False) for bits in UNIFORM_WIDTHS},
    **{name: Method(_allocated(name), takes_budget=True) for name in ("bmpq", "error", "random", "reverse")},
}
