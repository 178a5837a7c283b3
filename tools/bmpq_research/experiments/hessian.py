"""Hessian-trace sensitivities behind the same integer program.

What second-order mixed precision (HAWQ-V2) goes by.

`Omega_l(b) = trace(H_l) / n_l * sum_p (Q_b(w_p) - w_p)^2` (Dong et al., NeurIPS 2020), with the
trace by Hutchinson's estimator: the mean of `v^T H v` over Rademacher vectors `v`. It is taken at
the float weights, where the expansion is, during training.
"""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf import Measurement, estimate_costs
from bmpq_tf.model.kernels import allocation_history, model_kernels


class HessianTraces:
    """A sensitivity for `BMPQCallback`.

    The mean Hessian trace of each kernel in the place of its squared gradients.

    Args:
        model: the quantized model that the callback trains.
        float_model: a float model of the same layers; it is given the weights of the moment.
        images, labels: a batch of training images, as the model takes them, and their classes.
        draws: Rademacher vectors an estimate.
        seed: of the draws.
    """

    objective = "squared"

    def __init__(
        self,
        model: keras.Model,
        float_model: keras.Model,
        images,
        labels,
        *,
        draws: int = 16,
        seed: int = 0,
    ):
        self.model, self.float_model = model, float_model
        self.images, self.labels, self.draws, self.seed = images, labels, draws, seed

    def __call__(self, measured: Sequence[Measurement]) -> dict[str, list[float]]:
        copy_float_weights(self.model, self.float_model)
        paths = {measurement.path for measurement in measured}
        kernels = [
            variable for variable in self.float_model.trainable_variables if variable.path in paths
        ]
        # Drawn anew at every decision, from what a resumed run knows too.
        seed = (self.seed, len(allocation_history(self.model)))
        traces = hutchinson_traces(
            self.float_model, kernels, self.images, self.labels, self.draws, seed=seed
        )

        def with_trace(one: Measurement) -> Measurement:
            # A negative estimate is noise about zero.
            trace = max(traces[one.path], 0.0) / one.weights.size
            return dataclasses.replace(
                one, gradient_square=np.full_like(one.gradient_square, trace)
            )

        return {
            one.path: estimate_costs(with_trace(one), one.candidates, "squared") for one in measured
        }


def copy_float_weights(quantized: keras.Model, float_model: keras.Model) -> None:
    """Gives a float model the weights that its quantized twin rounds, and its statistics, by their
    paths.
    """
    values = {variable.path: variable for variable in quantized.weights}
    rounded = [state for state in model_kernels(quantized) if state.quantizer]
    values.update(
        {
            state.kernel.path: state.quantizer.quantized_from(state.variable.value)
            for state in rounded
        }
    )
    for variable in float_model.weights:
        variable.assign(values[variable.path])


def hutchinson_traces(
    model: keras.Model, kernels: list, images, labels, draws: int, seed: tuple[int, int]
) -> dict[str, float]:
    """Estimates the trace of each kernel's block of the Hessian of the mean cross-entropy.

    Args:
        model: a float classifier that returns logits.
        kernels: its variables to estimate for.
        images, labels: the batch that the loss is over.
        draws: Rademacher vectors; the error falls with their square root.
        seed: of the draws.

    Returns:
        By variable path, the mean of `v^T H v`.
    """
    variables = [kernel.value for kernel in kernels]

    @tf.function
    def products(vectors):
        with tf.GradientTape() as outer:
            outer.watch(variables)
            with tf.GradientTape() as inner:
                inner.watch(variables)
                logits = model(images, training=False)
                loss = tf.reduce_mean(
                    keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
                )
            gradients = inner.gradient(loss, variables)
        # All kernels at once: the vectors are independent, so the blocks off the diagonal average
        # out.
        turned = outer.gradient(gradients, variables, output_gradients=vectors)
        return [
            tf.reduce_sum(vector * product) for vector, product in zip(vectors, turned, strict=True)
        ]

    generator = np.random.default_rng(seed)
    sums = np.zeros(len(variables))
    for _ in range(draws):
        vectors = [
            tf.constant(generator.choice([-1.0, 1.0], variable.shape), tf.float32)
            for variable in variables
        ]
        sums += [float(value) for value in products(vectors)]
    return {kernel.path: float(value) / draws for kernel, value in zip(kernels, sums, strict=True)}
