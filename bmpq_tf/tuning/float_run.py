"""The float model of a search: how models are compiled, what it reaches, and its training."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf.files import replacing
from bmpq_tf.training.backup import BackupAndRestore
from bmpq_tf.training.epochs_shown import epochs_shown
from bmpq_tf.tuning import search_settings
from bmpq_tf.tuning.goal import Goal, goal_for
from bmpq_tf.tuning.search_data import check_better_than_guessing, part_values
from bmpq_tf.tuning.shared_runs import Training

_WEIGHTS, _BACKUP = "float.npz", "float_backup"


class FloatRun:
    """The model that others are compared with.

    Args:
        model: float, and compiled unless `compile_model` does it.
        training: gives the data of its training.
        validation: arguments of `evaluate`.
        compile_model: as `smallest_budget` takes it.
        epochs: that it is trained for; none if it is trained.
        seed: of that training.

    Attributes:
        compile_model: compiles a model for so many epochs.

    Raises:
        ValueError: it is not compiled, or what it is compiled with cannot be copied.
    """

    def __init__(
        self,
        model: keras.Model,
        training: Training,
        validation: dict[str, Any],
        compile_model: Callable[[keras.Model, int], None] | None,
        epochs: int,
        seed: int,
    ):
        self.model, self.training, self.validation = model, training, validation
        self.epochs, self.seed = epochs, seed
        self.compile_model = compile_model or _as_compiled(model)
        if compile_model:
            compile_model(model, max(1, epochs))

    def goal(self, metric: str, direction: str | None, max_drop) -> Goal:
        """Returns what is good enough beside what the model is now."""
        values: Any = self.model.evaluate(**self.validation, return_dict=True, verbose=0)  # pyright: ignore[reportArgumentType]
        plain = {name: float(value) for name, value in values.items() if np.ndim(value) == 0}
        return goal_for(self.model, plain, metric, direction, max_drop)

    def sure_goal(self, margin: float, metric: str, direction: str | None, max_drop) -> Goal:
        """Returns the same with the margin, once the model is trained.

        Raises:
            ValueError: nothing is worse than that, or the model has learned nothing.
        """
        goal = self.goal(metric, direction, max_drop)
        goal.check_excludes()
        check_better_than_guessing(self.validation, metric, goal.float_value)
        parts = part_values(self.model, self.validation, metric) if margin else ()
        return dataclasses.replace(goal, margin=float(margin), float_parts=parts)

    def fingerprints(self, folder: pathlib.Path, train: Any, validation: Any) -> dict[str, str]:
        """Returns what tells the model and the data from others.

        A model with the very weights that it was trained to in the folder is the one that the
        search there began with.
        """
        told = search_settings.fingerprints(self.model, train, validation)
        file, now = folder / _WEIGHTS, self.model.get_weights()
        if not self.epochs or not file.exists():
            return told
        with np.load(file, allow_pickle=False) as stored:
            same = len(stored) == len(now) and all(map(np.array_equal, stored.values(), now))
        known = search_settings.noted(folder) if same else {}
        return {**told, "model": known.get("model", told["model"])}

    def train(self, folder: pathlib.Path, verbose: int = 0) -> None:
        """Trains the model in place, unless the folder has its trained weights.

        Where it is interrupted, the model gets the weights of before, by which the search knows it.
        """
        if not self.epochs:
            return
        file = folder / _WEIGHTS
        if file.exists():
            with np.load(file, allow_pickle=False) as stored:
                self.model.set_weights([stored[name] for name in stored])
            return
        keras.utils.set_random_seed(self.seed)
        arguments, callbacks = self.training()
        backup = BackupAndRestore(folder / _BACKUP, delete_checkpoint=False)
        first = self.model.get_weights()
        try:
            with epochs_shown(f"Training '{self.model.name}' in float32", verbose) as epochs_done:
                self.model.fit(
                    **arguments,
                    shuffle=not isinstance(arguments["x"], tf.data.Dataset),
                    epochs=self.epochs,
                    verbose=0,  # pyright: ignore[reportArgumentType]
                    callbacks=[*callbacks, epochs_done, backup],
                )
        except BaseException:
            self.model.set_weights(first)
            raise
        with replacing(file) as temporary:
            np.savez(temporary, *self.model.get_weights())
        shutil.rmtree(folder / _BACKUP, ignore_errors=True)


def _as_compiled(model: keras.Model) -> Callable[[keras.Model, int], None]:
    """Returns a function that compiles a model as this one is, with a new optimizer."""
    if not model.compiled:
        raise ValueError(
            f"The model is not compiled, so its metrics are not known. Received: model "
            f"'{model.name}'. Compile it with an optimizer, a loss and the metric, or give "
            "compile_model."
        )
    config = model.get_compile_config()
    try:
        # What is no plain data would be found only behind the float model's training.
        json.dumps(config)
        keras.saving.deserialize_keras_object(config)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "What the model is compiled with cannot be copied: a class or a function in it is not "
            f"registered. Received: model '{model.name}'. Give compile_model, which compiles it."
        ) from error
    return lambda other, _: other.compile_from_config(config)
