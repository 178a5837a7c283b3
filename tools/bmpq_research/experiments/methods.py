"""The methods that a comparison knows.

How each turns the float model that all start from into what is trained and judged.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import keras
import tensorflow as tf

from bmpq_research.datasets import ImageDataset, normalised_training_images
from bmpq_research.experiments.activation_density import ActivationDensityCallback
from bmpq_research.experiments.after_training import quantized_after_training
from bmpq_research.experiments.hessian import HessianTraces
from bmpq_research.experiments.model_sensitivities import StepSizes, UncolouredSquares
from bmpq_research.experiments.tfmot_peer import check_tfmot, run_tfmot
from bmpq_research.experiments.train_config import TrainConfig, allocation_callback
from bmpq_research.experiments.training import quantized_model, start_allocated
from bmpq_tf.layers.config import LARGEST_BITS, SMALLEST_BITS

UNIFORM_WIDTHS = (8, 4, 3, 2)
# On which densities and Hessian traces are estimated.
_SAMPLE = 512


@dataclasses.dataclass(frozen=True)
class Method:
    """How a method makes its model; it has one of the two ways.

    Attributes:
        build: takes a float model, the configuration and the data; returns the model to train, and
            its allocating callback (which has a `history`) if any.
        make_file: takes a float model, the data, the configuration and a folder; returns a
            `.tflite` file's content and the logs of the epochs that it took.
        takes_budget: whether it is told what the model may take.
        from_float: whether that float model is the trained one of the same seed; it has its first
            weights otherwise.
        check: raises `MissingPeerError` if what it needs is not installed.
    """

    build: Callable | None = None
    make_file: (
        Callable[[keras.Model, ImageDataset, TrainConfig, pathlib.Path], tuple[bytes, list[dict]]]
        | None
    ) = None
    takes_budget: bool = False
    from_float: bool = False
    check: Callable[[], None] = lambda: None


def _float32(model: keras.Model, config: TrainConfig, dataset: ImageDataset):
    return model, None


def _uniform(bits: int) -> Method:
    # What is pinned stays so, as it does under every method.
    return Method(lambda model, config, dataset: (quantized_model(model, config, (bits,)), None))


def _allocated(sensitivity: str) -> Method:
    def build(model: keras.Model, config: TrainConfig, dataset: ImageDataset):
        named = dataclasses.replace(config, sensitivity=sensitivity)
        return _allocated_by(model, named, lambda _: None)

    return Method(build, takes_budget=True)


def _hessian(model: keras.Model, config: TrainConfig, dataset: ImageDataset):
    images, labels = _sample(dataset)
    twin = keras.models.clone_model(model)
    return _allocated_by(
        model,
        config,
        lambda quantized: HessianTraces(quantized, twin, images, labels, seed=config.seed),
    )


def _of_model(sensitivity: Callable) -> Method:
    def build(model: keras.Model, config: TrainConfig, dataset: ImageDataset):
        return _allocated_by(model, config, sensitivity)

    return Method(build, takes_budget=True)


def _allocated_by(model: keras.Model, config: TrainConfig, sensitivity_of: Callable):
    """Quantizes a model for the callback that goes by a sensitivity made for it."""
    quantized = quantized_model(model, config, config.candidate_bits)
    start_allocated(quantized, config)
    return quantized, allocation_callback(config, sensitivity_of(quantized))


def _activation_density(model: keras.Model, config: TrainConfig, dataset: ImageDataset):
    # Its rule names any width, so every width is a candidate.
    widths = tuple(range(SMALLEST_BITS, LARGEST_BITS + 1))
    callback = ActivationDensityCallback(
        _sample(dataset)[0], warmup_epochs=config.warmup_epochs, settle_epochs=config.settle_epochs
    )
    return quantized_model(model, config, widths), callback


def _after_training(bits: int) -> Method:
    return Method(
        make_file=lambda model, dataset, config, folder: (
            quantized_after_training(model, bits, folder),
            [],
        ),
        from_float=True,
    )


def _sample(dataset: ImageDataset) -> tuple[tf.Tensor, tf.Tensor]:
    return next(iter(normalised_training_images(dataset, _SAMPLE, _SAMPLE)))


METHODS: dict[str, Method] = {
    "float32": Method(_float32),
    **{f"uniform{bits}": _uniform(bits) for bits in UNIFORM_WIDTHS},
    **{name: _allocated(name) for name in ("bmpq", "error", "random", "reverse")},
    "bmpq_from_float": dataclasses.replace(_allocated("bmpq"), from_float=True),
    "hessian": Method(_hessian, takes_budget=True),
    "step_sizes": _of_model(StepSizes),
    "uncoloured_squares": _of_model(UncolouredSquares),
    "activation_density": Method(_activation_density),
    "tfmot_int8": Method(make_file=run_tfmot, check=check_tfmot),
    "after_training_int8": _after_training(8),
    "after_training_int4": _after_training(4),
}
