"""The settings of a run reach the model, the callback and the optimizer."""

import dataclasses

import keras
import numpy as np
import pytest

from bmpq_research.datasets import ImageDataset
from bmpq_research.experiments.train_config import (
    TrainConfig,
    allocation_callback,
    check_config,
)
from bmpq_research.experiments.training import (
    accuracy_and_loss,
    fit,
    made_as,
    quantized_model,
    train,
)
from bmpq_research.experiments.whose_backup import check_backup, note_backup
from bmpq_tf import InfeasibleBudgetError
from bmpq_tf.model.kernels import model_kernels


def test_the_quantizers_and_the_callback_are_as_configured():
    config = TrainConfig(
        initial_scale="mse",
        normalise_kernels=True,
        objective="joint",
        initial_widths="allocated",
        min_improvement=0.1,
        activation_bits=4,
        freeze_oscillations=0.1,
    )
    inputs = keras.Input((4,))
    model = keras.Model(
        inputs,
        keras.layers.Dense(3)(keras.layers.Dense(4, activation="relu", name="hidden")(inputs)),
    )
    told = quantized_model(model, config, (2, 4)).get_layer("hidden").quantizer
    assert (
        told.initial_scale,
        told.normalise_kernels,
        told.track_sensitivity,
        told.activation_bits,
    ) == ("mse", True, "joint", 4)
    assert told.track_oscillations
    plain = dataclasses.replace(config, objective="squared", freeze_oscillations=0.0)
    told = quantized_model(model, plain, (2, 4)).get_layer("hidden").quantizer
    assert told.track_sensitivity is True
    assert not told.track_oscillations
    callback = allocation_callback(config)
    assert (
        callback.sensitivity.method,
        callback.sensitivity.objective,
        callback.min_improvement,
    ) == ("bmpq", "joint", 0.1)


@pytest.mark.parametrize("quantized", [False, True])
def test_models_train_at_the_precision_and_are_judged_in_float32(quantized):
    config = TrainConfig(precision="mixed_bfloat16", epochs=1, batch_size=8)
    images = np.random.default_rng(0).integers(0, 255, (64, 2, 2, 1), dtype=np.uint8)
    halves = images, np.arange(64) % 2
    dataset = ImageDataset("noise", halves, halves, 2, augment=False)

    def built() -> keras.Model:
        layers = [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
        model = keras.Sequential(layers)
        return quantized_model(model, config, (2, 4)) if quantized else model

    with made_as(config):
        model = built()
    twin = built()
    computed_in = [each.layers[-1].compute_dtype for each in (model, twin)]
    assert computed_in == ["bfloat16", "float32"]
    fit(model, dataset, config, [], "model", verbose=0)
    twin.set_weights(model.get_weights())
    assert accuracy_and_loss(model, dataset) == accuracy_and_loss(twin, dataset)


def test_a_model_that_teaches_itself_is_trained_and_logged_as_any_other():
    config = TrainConfig(self_distillation=0.5, epochs=1, batch_size=8)
    images = np.random.default_rng(0).integers(0, 255, (64, 2, 2, 1), dtype=np.uint8)
    halves = images, np.arange(64) % 2
    layers = [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = quantized_model(keras.Sequential(layers), config, (2, 4))
    (before,) = (state.variable.numpy() for state in model_kernels(model))
    dataset = ImageDataset("noise", halves, halves, 2, augment=False)
    (told,) = fit(model, dataset, config, [], "model", verbose=0)
    assert {"accuracy", "loss"} <= set(told)
    assert np.isfinite(told["loss"])
    (after,) = (state.variable.numpy() for state in model_kernels(model))
    assert not np.array_equal(before, after)


def test_a_precision_or_a_second_teacher_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"precision='half'\. Known: float32, mixed_bfloat16"):
        check_config(TrainConfig(precision="half"))
    with pytest.raises(ValueError, match=r"one teacher\. Received: distillation=0\.5"):
        check_config(TrainConfig(distillation=0.5, self_distillation=0.5))
    with pytest.raises(ValueError, match=r"a share.*Received: self_distillation=2"):
        check_config(TrainConfig(self_distillation=2))


class Narrows(keras.callbacks.Callback):
    """Records an allocation before the third epoch, as the allocating callbacks do."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            for state in model_kernels(self.model):
                state.quantizer.history = (
                    {
                        "epoch": epoch,
                        "status": "optimal",
                        "budget": {},
                        "bits": 2,
                        "sensitivity": None,
                        "enbg": None,
                    },
                )


def test_the_learning_rate_restarts_during_fit():
    images = np.random.default_rng(0).integers(0, 255, (8, 2, 2, 1), dtype=np.uint8)
    dataset = ImageDataset(
        "noise", (images, np.arange(8) % 2), (images, np.arange(8) % 2), 2, augment=False
    )
    config = TrainConfig(
        epochs=6, batch_size=8, schedule="step", lr_restart=0.5, lr_warmup_epochs=0
    )
    flat = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model = quantized_model(flat, config, (2, 4))
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(float(model.optimizer.learning_rate))
    )
    fit(model, dataset, config, [Narrows(), watch], "model", verbose=0)
    # One step an epoch, and the rate of the next one is told: three of four steps after the
    # restart. Without one it would be 0.001.
    assert seen[4] == pytest.approx(0.05 * (1 + np.cos(np.pi * 3 / 4)) / 2, rel=1e-4)


def test_a_refused_run_does_not_own_the_backups_folder(tmp_path):
    pytest.importorskip("sklearn")
    config = TrainConfig(channel_multiplier=0.25, epochs=2, backup_dir=str(tmp_path), budget="40x")
    with pytest.raises(InfeasibleBudgetError):
        train(config)
    possible = dataclasses.replace(config, budget="9x")
    check_backup(possible)
    note_backup(possible, "1437 images")
    with pytest.raises(
        ValueError, match=r"is of another run\. Received: budget='40x'; the backup has budget='9x'"
    ):
        check_backup(config)
    check_backup(possible, "1437 images")
    with pytest.raises(
        ValueError, match=r"Received: data='1436 images'; the backup has data='1437 images'"
    ):
        check_backup(possible, "1436 images")


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_depthwise_kernels_train_at_narrow_widths_where_float_ones_do(granularity):
    config = TrainConfig(
        model="mobilenet",
        channel_multiplier=0.25,
        budget="12x",
        candidate_bits=(2, 3, 4, 8),
        granularity=granularity,
        epochs=3,
    )
    run = train(config, verbose=0)
    assert all(np.all(np.isfinite(variable)) for variable in run.model.get_weights())
    assert [solved["status"] for solved in run.callback.history] == ["optimal"] * 2


def test_statistics_anew_are_those_of_the_last_epoch_after_a_restart_too(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (64, 2, 2, 1), dtype=np.uint8)
    halves = images, np.arange(64) % 2
    dataset = ImageDataset("noise", halves, halves, 2, augment=False)
    config = TrainConfig(
        epochs=3, batch_size=8, batchnorm_batches=2, backup_dir=str(tmp_path / "backup")
    )
    means = []
    # The second finds all epochs in the backup.
    for _ in range(2):
        keras.utils.set_random_seed(0)
        norm = keras.layers.BatchNormalization()
        layers = [keras.Input((2, 2, 1)), norm, keras.layers.Flatten(), keras.layers.Dense(2)]
        fit(keras.Sequential(layers), dataset, config, [], "model", verbose=0)
        means.append(np.asarray(norm.moving_mean))
    np.testing.assert_array_equal(*means)
