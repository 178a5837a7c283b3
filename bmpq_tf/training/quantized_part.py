"""Which model a budget is of: the fitted one, or the quantized one that lies in it."""

from collections.abc import Sequence

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.model import keras_graph
from bmpq_tf.model.kernels import KernelState
from bmpq_tf.training.kernel_optimizers import trains_in_own_way


def quantized_part(fitted: keras.Model) -> keras.Model:
    """Returns the model whose kernels are allocated where none was named.

    A functional or sequential model is it itself, and so is one that has quantized layers of its
    own. In any other, such as `keras.distillation.Distiller` or a class with a `train_step`, it is
    the only quantized model; teachers, critics and other float models beside it do not count. What
    is trained by Keras's own step and trains float kernels beside its quantized model is a network
    of both.

    Args:
        fitted: what `fit` is called on; need not be built.

    Raises:
        ValueError: it trains in a way of its own, and several quantized models lie in it.
    """
    if isinstance(fitted, keras.Sequential) or keras_graph.is_graph(fitted):
        return fitted
    inside = quantized_models(fitted)
    covered = {id(layer) for model in inside for layer in keras_graph.quantized_layers(model)}
    if any(id(layer) not in covered for layer in keras_graph.quantized_layers(fitted)):
        return fitted
    if trains_in_own_way(fitted):
        if len(inside) > 1:
            names = ", ".join(f"'{model.name}'" for model in inside)
            raise ValueError(
                f"Several quantized models lie in '{fitted.name}'. Received: {names}. Say which "
                "one the budget is of: BMPQCallback(budget, model=...); model= the fitted model "
                "counts all that is in it. One callback for each is possible too."
            )
        return quantized_part(inside[0]) if inside else fitted
    if len(inside) == 1 and not _trains_beside(fitted, inside[0]):
        return quantized_part(inside[0])
    return fitted


def quantized_models(fitted: keras.Model) -> list[keras.Model]:
    """Returns the models inside that have quantized layers.

    One whose quantized layers another holds too, such as an extractor of features, is not told.
    """
    models = [part for part in keras_graph.sublayers(fitted) if isinstance(part, keras.Model)]
    held = [
        (model, {id(layer) for layer in keras_graph.quantized_layers(model)}) for model in models
    ]
    return [
        model
        for at, (model, layers) in enumerate(held)
        if layers
        and not any(
            layers < others or (layers == others and earlier < at)
            for earlier, (_, others) in enumerate(held)
        )
    ]


def other_part(model: keras.Model, states: Sequence[KernelState]) -> str:
    """Returns what to say of a budget that fails where float kernels count beside a quantized
    model inside.
    """
    names = [f"'{inner.name}'" for inner in quantized_models(model)]
    if not names or all(state.quantizer for state in states):
        return ""
    return (
        f" If the budget is of {' or '.join(names)} inside '{model.name}' alone, say so: "
        "BMPQCallback(budget, model=...)."
    )


def _trains_beside(fitted: keras.Model, part: keras.Model) -> bool:
    """Whether float kernels beside a model are trained with it, or may come to be."""
    within = {id(layer) for layer in keras_compat.flattened_layers(part)}
    beside = [layer for layer in keras_graph.sublayers(fitted) if id(layer) not in within]
    return any(
        not layer.built or any(kernel.trainable for kernel in keras_graph.kernel_variables(layer))
        for layer in beside
    )
