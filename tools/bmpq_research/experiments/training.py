"""One training run from scratch: data, model, recipe, callback; resumable.

A function of its configuration and seed.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator

import keras
import numpy as np

from bmpq_research.datasets import (
    EpochCounter,
    ImageDataset,
    batches_of,
    load_dataset,
    normalised_test_images,
)
from bmpq_research.experiments.controls import Control
from bmpq_research.experiments.epoch_log import EpochWatch, read_epochs
from bmpq_research.experiments.losses import ClassificationLoss, accuracy, with_teacher
from bmpq_research.experiments.near_two_bits import (
    NarrowDecay,
    estimate_batch_statistics,
    quantized_so,
)
from bmpq_research.experiments.recipe import sgd
from bmpq_research.experiments.restart import RestartRate
from bmpq_research.experiments.train_config import (
    TrainConfig,
    allocation_callback,
    check_config,
    quantization,
)
from bmpq_research.experiments.whose_backup import check_backup, note_backup
from bmpq_research.models import build_model
from bmpq_tf import SelfDistiller, allocate_bits, assign_bits
from bmpq_tf.conversion.cloning import clone
from bmpq_tf.conversion.quantize import quantize_model
from bmpq_tf.model import keras_graph
from bmpq_tf.training.backup import BackupAndRestore
from bmpq_tf.training.callback import BMPQCallback
from bmpq_tf.training.epochs_shown import epochs_shown
from bmpq_tf.training.oscillation_freezing import FreezeOscillations


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training run leaves.

    Attributes:
        config: what was asked for.
        dataset: the images it trained and is judged on.
        model: the quantized model, trained.
        callback: the `BMPQCallback`, with its history.
        logs: Keras's logs of each epoch, with its `epoch` and `seconds`; with a `backup_dir` those
            before a restart too.
        accuracy: `keras` for the quantized model, `float` where one was trained; shares of the
            judged images.
        float_model: the float model, where one was trained.
    """

    config: TrainConfig
    dataset: ImageDataset
    model: keras.Model
    callback: BMPQCallback
    logs: list[dict[str, float]]
    accuracy: dict[str, float]
    float_model: keras.Model | None = None

    def judged_batches(self):
        """Returns the images that the accuracies are told for, normalised as in training."""
        return normalised_test_images(self.dataset)


def train(config: TrainConfig, *, verbose: int = 2) -> Run:
    """Trains as configured; a run killed and started again with the same configuration ends alike.

    Raises:
        ValueError, InfeasibleBudgetError, DatasetNotFoundError: before any training, if something
            asked for cannot be.
    """
    check_config(config)
    if config.distillation and not config.with_float:
        raise ValueError(
            "Distillation needs the float model: give with_float too. Received: "
            f"distillation={config.distillation}, with_float=False."
        )
    check_backup(config)
    dataset = load_dataset(config.dataset, config.data_dir, download=config.download)
    if config.validation:
        dataset = dataset.with_validation(config.validation)
    data = dataset.fingerprint()
    check_backup(config, data)
    with made_as(config):
        return _trained(config, dataset, data, verbose)


@contextlib.contextmanager
def made_as(config: TrainConfig) -> Iterator[None]:
    """Gives models the configured precision, and kernels of 2 bits their levels and gradient, while
    it lasts.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        with quantized_so(config.levels, config.level_gradient):
            yield
    finally:
        keras.config.set_dtype_policy(before)


def _trained(config: TrainConfig, dataset: ImageDataset, data: str, verbose: int) -> Run:
    float_model = initial_model(config, dataset)
    model = quantized_model(float_model, config, config.candidate_bits)
    callback = allocation_callback(config)
    callback.check(model, config.epochs)
    start_allocated(model, config)
    note_backup(config, data)
    shares = {}
    if config.with_float:
        print(f"Training {config.model} in float32, to compare with.")
        fit(float_model, dataset, config, [], "float", verbose)
        shares["float"] = top1(float_model, dataset)
    print(f"Training {config.model} from scratch under a budget of {callback.budget}.")
    logs = fit(
        model,
        dataset,
        config,
        [callback],
        "quantized",
        verbose,
        teacher=float_model if config.distillation else None,
    )
    shares["keras"] = top1(model, dataset)
    return Run(
        config, dataset, model, callback, logs, shares, float_model if config.with_float else None
    )


def initial_model(config: TrainConfig, dataset: ImageDataset) -> keras.Model:
    """Builds the float model that every method starts from.

    Its weights are a function of the seed.
    """
    keras.utils.set_random_seed(config.seed)
    return build_model(
        config.model, dataset.image_shape, dataset.num_classes, config.channel_multiplier
    )


def start_allocated(model: keras.Model, config: TrainConfig) -> None:
    """Gives a model that was never trained the widths that quantization error alone asks for, where
    the configuration says so.
    """
    if config.initial_widths == "allocated":
        assign_bits(
            model, allocate_bits(model, config.budget, Control("error", config.objective)).bits
        )


def quantized_model(
    model: keras.Model, config: TrainConfig, candidate_bits: Iterable[int]
) -> keras.Model:
    """Quantizes a float model as configured, with these candidates."""
    return quantize_model(
        model,
        config=quantization(config, candidate_bits),
        pin=None if config.pin == "none" else config.pin,
    )


def fit(
    model,
    dataset: ImageDataset,
    config: TrainConfig,
    callbacks: list,
    part: str,
    verbose: int = 2,
    teacher=None,
) -> list[dict[str, float]]:
    """Trains a model by the recipe.

    Args:
        model: float or quantized; it is compiled here.
        dataset: trains on its `train`.
        config: the recipe, the seed, and where backups go.
        callbacks: for `fit`; those that add to the logs.
        part: the folder of this model's backup below `config.backup_dir`.
        verbose: as Keras's.
        teacher: a trained float model, for distillation.

    Returns:
        The logs of each epoch, those before a restart included.

    Raises:
        DivergedError: the loss stopped being finite.
    """
    counter = EpochCounter()
    batches = batches_of(dataset, batch_size=config.batch_size, seed=config.seed, counter=counter)
    steps = len(batches)
    warmup = (
        min(steps, steps * config.epochs // 10)
        if config.lr_warmup_epochs is None
        else round(steps * config.lr_warmup_epochs)
    )
    optimizer = sgd(
        learning_rate=config.learning_rate,
        steps=steps * config.epochs,
        warmup_steps=warmup,
        weight_decay=config.weight_decay,
        schedule=config.schedule,
        restart=config.lr_restart,
    )
    share = config.distillation if teacher else 0.0
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if config.label_smoothing or share:
        loss = ClassificationLoss(config.label_smoothing, share, config.temperature)
    trained = model
    if config.self_distillation and keras_graph.quantized_layers(model):
        apart = keras.distillation.LogitsDistillation(
            config.temperature, loss=keras.losses.KLDivergence()
        )
        trained = SelfDistiller(model, apart, config.self_distillation)
    # XLA's convolutions are the slower ones on a CPU.
    trained.compile(optimizer, loss, metrics=[accuracy if share else "accuracy"], jit_compile=False)
    if share:
        batches = with_teacher(batches, teacher)
    folder = pathlib.Path(config.backup_dir) / part if config.backup_dir else None
    if config.freeze_oscillations and keras_graph.quantized_layers(model):
        callbacks = [
            *callbacks,
            FreezeOscillations(config.freeze_oscillations, last_epochs=config.settle_epochs),
        ]
    if config.narrow_decay < 1.0:
        callbacks = [*callbacks, NarrowDecay(config.narrow_decay)]
    optimizer.use_ema, optimizer.ema_momentum = bool(config.average), config.average
    if config.lr_restart:
        callbacks = [*callbacks, RestartRate(optimizer._learning_rate, steps)]
    callbacks = [*callbacks, EpochWatch(folder)]
    if folder:
        # Kept at the end, so that a run killed in its second part does not train the first again.
        callbacks.append(BackupAndRestore(folder, delete_checkpoint=False))
    # At 1 Keras has a bar of its own.
    with epochs_shown(f"Training '{model.name}' ({part})", verbose == 2) as epochs_done:
        history = trained.fit(
            batches,
            epochs=config.epochs,
            shuffle=False,
            callbacks=[*callbacks, counter, epochs_done],
            verbose=verbose,
        )
    # A run that was resumed behind its last epoch never told the counter.
    counter.epoch.assign(config.epochs - 1)
    estimate_batch_statistics(model, batches, config.batchnorm_batches)
    if folder:
        return read_epochs(folder)
    columns = history.history
    return [
        {"epoch": epoch, **{name: float(values[row]) for name, values in columns.items()}}
        for row, epoch in enumerate(history.epoch)
    ]


def in_float32(model: keras.Model) -> keras.Model:
    """Returns a model, float or quantized, or its copy in float32 where it trained in 16 bits."""
    if model.compute_dtype == model.variable_dtype:
        return model
    return clone(model, lambda layer, config: None, in_variable_dtype=True)


def top1(model, dataset: ImageDataset) -> float:
    """Returns the share of a data set's `test` images that a Keras model labels rightly."""
    return accuracy_and_loss(model, dataset)[0]


def accuracy_and_loss(model, dataset: ImageDataset) -> tuple[float, float]:
    """Returns that share, and the mean cross entropy in nats; both in float32, as files answer."""
    logits = in_float32(model).predict(normalised_test_images(dataset), verbose=0)
    labels = dataset.test[1]
    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return float(np.mean(logits.argmax(-1) == labels)), float(np.mean(losses))
