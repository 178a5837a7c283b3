"""Trainings of one quantized model that all begin with the same weights."""

import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf.allocation.budget import Budget
from bmpq_tf.allocation.solver import AllocationError
from bmpq_tf.model.kernels import compression, model_kernels
from bmpq_tf.training.backup import BackupAndRestore
from bmpq_tf.training.callback import BMPQCallback
from bmpq_tf.tuning.goal import Goal
from bmpq_tf.tuning.search_data import part_values

# What one training is given: the arguments of `fit`, and callbacks that belong to them.
Training = Callable[[], tuple[dict[str, Any], list[keras.callbacks.Callback]]]


class SharedRuns:
    """Trains a model again and again from the weights that it has now.

    It is built once, and compiled once for each length of a run, so that TensorFlow traces it as
    often.

    Args:
        model: quantized; its weights at the end are those of the last run.
        training: gives the data of a run.
        validation: arguments of `evaluate`.
        compile_model: compiles it for a run of so many epochs.
        goal: which value of `evaluate` a run is judged by, on parts of the data too where the goal
            has the float model's.
        seed: of each run.
    """

    def __init__(
        self,
        model: keras.Model,
        training: Training,
        validation: dict[str, Any],
        compile_model: Callable[[keras.Model, int], None],
        goal: Goal,
        seed: int,
    ):
        self.model, self.training, self.validation = model, training, validation
        self.compile_model, self.goal, self.seed = compile_model, goal, seed
        self._first = _values(model.variables)
        self._compiled_for = 0
        self._optimizer: list[np.ndarray] = []

    def run(
        self,
        budget: Budget,
        epochs: int,
        callbacks: list[keras.callbacks.Callback],
        backup: pathlib.Path | None = None,
    ) -> tuple[float, float, tuple[float, ...]]:
        """Trains from the first weights under a budget.

        Args:
            budget: of `BMPQCallback`.
            epochs: how many.
            callbacks: of the search.
            backup: folder from which a run that was killed goes on; it is left there.

        Returns:
            The metric on the validation data, how many times fewer parameter bits than float32, and
            the metric on parts of the data, if asked for.

        Raises:
            AllocationError: no widths were found in time, so that the model is over the budget.
        """
        self._begin(epochs)
        arguments, own = self.training()
        keep = [BackupAndRestore(backup, delete_checkpoint=False)] if backup else []
        under = BMPQCallback(budget, verbose=0)
        self.model.fit(
            **arguments,
            # Keras warns that it does not shuffle a data set.
            shuffle=not isinstance(arguments["x"], tf.data.Dataset),
            epochs=epochs,
            verbose=0,  # pyright: ignore[reportArgumentType]
            callbacks=[under, *own, *callbacks, *keep],
        )
        if not under.is_within_budget:
            raise AllocationError(
                f"A run under '{budget}' ended over it: no widths were found in time (see the "
                "warnings). Ask for budgets that are easier to meet, or leave a limit out."
            )
        values: Any = self.model.evaluate(**self.validation, return_dict=True, verbose=0)  # pyright: ignore[reportArgumentType]
        parts = ()
        if self.goal.float_parts:
            parts = part_values(self.model, self.validation, self.goal.metric)
        return float(values[self.goal.metric]), compression(model_kernels(self.model)), parts

    def _begin(self, epochs: int) -> None:
        """Puts back what a run may have changed: weights, widths, scales, sums of gradients, random
        numbers, the optimizer's state and the record of decisions.
        """
        keras.utils.set_random_seed(self.seed)
        if self._compiled_for != epochs:
            self.compile_model(self.model, epochs)
            optimizer: Any = self.model.optimizer
            optimizer.build(self.model.trainable_variables)
            self._optimizer, self._compiled_for = _values(optimizer.variables), epochs
        # Metrics join the variables where a model has been compiled; fit resets them.
        for variable, value in zip(self.model.variables, self._first, strict=False):
            variable.assign(value)
        for variable, value in zip(self.model.optimizer.variables, self._optimizer, strict=True):
            variable.assign(value)
        for state in model_kernels(self.model):
            if state.quantizer:
                state.quantizer.history = ()


def _values(variables) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
