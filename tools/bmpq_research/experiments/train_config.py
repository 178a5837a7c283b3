"""What decides a training run from scratch, and its checks."""

import dataclasses
import math
from collections.abc import Iterable

from bmpq_research.experiments.controls import Control
from bmpq_research.experiments.losses import ClassificationLoss
from bmpq_research.experiments.near_two_bits import GRADIENTS, LEVELS, two_bit_levels
from bmpq_research.experiments.recipe import sgd
from bmpq_tf import QuantizationConfig
from bmpq_tf.training.callback import BMPQCallback
from bmpq_tf.training.decision_options import Sensitivity
from bmpq_tf.training.oscillation_freezing import FreezeOscillations

# What only grids of experiments try.
IN_GRIDS = (
    *("level_gradient", "narrow_decay", "average", "batchnorm_batches"),
    *("drop_channels", "drop_epochs", "self_distillation", "precision"),
)
INITIAL_WIDTHS = ("widest", "allocated")
PINS = ("auto", "ends", "none")
PRECISIONS = ("float32", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run's outcome, and where it may keep backups.

    Attributes:
        model, dataset: names that `bmpq_research.models` and `bmpq_research.datasets` know.
        data_dir, download: as `load_dataset` takes them.
        channel_multiplier: of the model.
        budget, candidate_bits, scale, granularity: as `quantize_model` and `BMPQCallback` take
            them.
        initial_scale, normalise_kernels: likewise.
        pin: likewise: `"auto"`, `"ends"`, or `"none"`.
        activation_bits: likewise: 16, 8, 4 or 2; 0 leaves activations float.
        sensitivity, objective: of the `controls.Control` that the widths go by.
        initial_widths: what the warm-up runs at: `"widest"`, or `"allocated"`, those of the control
            `"error"` under the budget.
        warmup_epochs, interval_epochs, settle_epochs, min_improvement: the callback's schedule.
        epochs, batch_size, learning_rate, weight_decay, schedule: the recipe, as `recipe.sgd` takes
            it.
        lr_restart: share of the peak learning rate that it rises to again whenever an allocation
            changes widths (`restart.Restarted`); 0: never.
        lr_warmup_epochs: over which the learning rate rises; a tenth of the epochs, at most one, if
            `None`.
        freeze_oscillations: threshold of `FreezeOscillations` in the epochs that settle; 0: none.
        label_smoothing, distillation, temperature: the loss, as `losses.ClassificationLoss` takes
            it; distillation is from the trained float model, and is of quantized models only.
        self_distillation: share of the loss that is the divergence from the same weights unrounded,
            which train in the same steps (`bmpq_tf.SelfDistiller`), at `temperature`; 0: none.
        precision: that it trains at, a Keras dtype policy of `PRECISIONS`.
        levels, level_gradient: of kernels of 2 bits, as `near_two_bits.quantized_so` takes them.
        narrow_decay: share of the weight decay that kernels of 2 bits get.
        average: momentum of the averages of the weights that replace them at the end; 0: none.
        batchnorm_batches: over which BatchNorm's statistics are taken anew at the end; 0: as
            training leaves them.
        drop_channels: `"squared"` or `"first_order"`: drop the channels that the budget has no room
            for, by this sensitivity; empty: none.
        drop_epochs: that it is trained before, at its widest; they come on top of `epochs`.
        validation: hold out this many training images and judge on them; 0 trains on all and judges
            on the test set.
        with_float: train the float model alike first.
        seed: of weights, order, augmentation and the random control.
        backup_dir: where a killed run finds its last epoch; `None` keeps none.
    """

    model: str = "digits_cnn"
    dataset: str = "digits"
    data_dir: str | None = None
    download: bool = False
    channel_multiplier: float = 1.0
    budget: str = "10x"
    candidate_bits: tuple[int, ...] = (2, 4, 8)
    scale: str = "learned"
    granularity: str = "tensor"
    initial_scale: str = "statistical"
    normalise_kernels: bool = False
    activation_bits: int = 0
    pin: str = "auto"
    sensitivity: str = "bmpq"
    objective: str = "first_order"
    initial_widths: str = "widest"
    warmup_epochs: int = 1
    interval_epochs: int = 1
    settle_epochs: int | None = None
    min_improvement: float = 0.0
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    lr_restart: float = 0.0
    lr_warmup_epochs: float | None = None
    freeze_oscillations: float = 0.0
    label_smoothing: float = 0.0
    distillation: float = 0.0
    temperature: float = 4.0
    self_distillation: float = 0.0
    precision: str = "float32"
    levels: str = "twos_complement"
    level_gradient: str = "clipped"
    narrow_decay: float = 1.0
    average: float = 0.0
    batchnorm_batches: int = 0
    drop_channels: str = ""
    drop_epochs: int = 2
    validation: int = 0
    with_float: bool = False
    seed: int = 0
    backup_dir: str | None = None


def check_config(config: TrainConfig) -> None:
    """Raises ValueError for a setting that is not known or out of its range, before there is a
    model or data.
    """
    counts = (("epochs", 1), ("batch_size", 1), ("validation", 0), ("batchnorm_batches", 0))
    counts += (("drop_epochs", 1),)
    for name, least in counts:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(
                f"{name} must be a whole number, {least} or more. Received: {name}={value!r}."
            )
    for name in ("channel_multiplier", "learning_rate"):
        value = getattr(config, name)
        if (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not 0 < value < math.inf
        ):
            raise ValueError(f"{name} must be a positive number. Received: {name}={value!r}.")
    for name in ("narrow_decay", "average"):
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(
                f"{name} must be from 0 to 1. Received: {name}={getattr(config, name)!r}."
            )
    quantization(config, config.candidate_bits)
    for name, known in (
        ("initial_widths", INITIAL_WIDTHS),
        ("pin", PINS),
        ("levels", LEVELS),
        ("level_gradient", GRADIENTS),
        ("drop_channels", ("", "first_order", "squared")),
        ("precision", PRECISIONS),
    ):
        value = getattr(config, name)
        if value not in known:
            raise ValueError(
                f"Unknown {name}. Received: {name}={value!r}. Known: {', '.join(known)}."
            )
    allocation_callback(config)
    ClassificationLoss(config.label_smoothing, config.distillation, config.temperature)
    if not 0 <= config.self_distillation <= 1:
        raise ValueError(
            "self_distillation is a share, from 0 to 1. Received: self_distillation="
            f"{config.self_distillation}."
        )
    if config.distillation and config.self_distillation:
        raise ValueError(
            "A model has one teacher. Received: "
            f"distillation={config.distillation}, self_distillation={config.self_distillation}."
        )
    if config.freeze_oscillations:
        FreezeOscillations(config.freeze_oscillations, last_epochs=config.settle_epochs)
    sgd(
        learning_rate=config.learning_rate,
        steps=1,
        schedule=config.schedule,
        restart=config.lr_restart,
    )


def quantization(config: TrainConfig, candidate_bits: Iterable[int]) -> QuantizationConfig:
    """Returns how quantizers are made as configured, with these candidates."""
    same = ("scale", "granularity", "initial_scale", "normalise_kernels")
    return QuantizationConfig(
        tuple(candidate_bits),
        activation_bits=config.activation_bits or None,
        track_sensitivity="joint" if config.objective == "joint" else True,
        track_oscillations=config.freeze_oscillations > 0.0,
        two_bit_levels=two_bit_levels(config.levels),
        **{name: getattr(config, name) for name in same},
    )


def allocation_callback(
    config: TrainConfig, sensitivity: Sensitivity | None = None
) -> BMPQCallback:
    """Returns the callback that allocates as configured, by the control or another sensitivity."""
    return BMPQCallback(
        config.budget,
        warmup_epochs=config.warmup_epochs,
        interval_epochs=config.interval_epochs,
        settle_epochs=config.settle_epochs,
        min_improvement=config.min_improvement,
        sensitivity=sensitivity or Control(config.sensitivity, config.objective, config.seed),
    )
