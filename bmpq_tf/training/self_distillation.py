"""`SelfDistiller`: the weights of a quantized model teach it before they are rounded."""

from typing import Any

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.arguments import real
from bmpq_tf.conversion.supported_models import check_quantized
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer, unrounded
from bmpq_tf.model import graph_view


class SelfDistiller(keras.Model):
    """Trains a quantized model that its own weights teach before they are rounded (after networks
    of several widths, Yu et al. 2021, arXiv:1911.07346).

    Every step goes forward twice. With the kernels as they are, the model learns from the labels
    alone; with rounded kernels it learns from the labels and from the first answers. Both move the
    same weights. A step takes about twice the time, no float model is needed, and the trained model
    is the one that is handed in: evaluate, save and export that one (METHOD.md, "Schedule").

    Compile and fit it as the model itself. `BMPQCallback` finds the model inside. Moving statistics
    and activation ranges are those of the rounded network; regularization counts in both passes.
    Models with `keras.RematScope` are not for it.

    Args:
        student: the quantized model, built.
        distillation_loss: how far the rounded answers are from the others, as
            `keras.distillation.Distiller` takes it; by default `LogitsDistillation` by divergence
            at a temperature of 4, which is for outputs that are logits.
        distillation_weight: share of it in what the rounded network learns from, 0 to 1.
        **kwargs: `keras.Model`'s own.

    Attributes:
        student: the model.

    Raises:
        TypeError: the student is no Keras model.
        ValueError: it is not built or not quantized, the weight is no share, or its outputs are
            probabilities and no loss is given.

    Example:
        >>> trainer = bmpq_tf.SelfDistiller(model)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> trainer.compile("adam", loss, metrics=["accuracy"])
        >>> callback = bmpq_tf.BMPQCallback("8x", verbose=0)
        >>> told = trainer.fit(images, labels, epochs=3, callbacks=[callback], verbose=0)
        >>> told.history["bmpq_within_budget"]
        [0.0, 1.0, 1.0]
    """

    def __init__(
        self,
        student: keras.Model,
        distillation_loss: "keras.distillation.DistillationLoss | None" = None,
        distillation_weight: float = 0.5,
        **kwargs,
    ):
        check_quantized(student)
        share = real(distillation_weight)
        if share is None or not 0 <= share <= 1:
            raise ValueError(
                "distillation_weight is a share, from 0 to 1. Received: "
                f"distillation_weight={distillation_weight!r}."
            )
        if distillation_loss is None and _ends_in_softmax(student):
            raise ValueError(
                f"Model '{student.name}' ends in a softmax, and the default distillation loss is "
                "for logits. Received: distillation_loss=None. Let the model end in logits, or "
                "give a keras.distillation.DistillationLoss of your own."
            )
        super().__init__(**kwargs)
        self.student = student
        # As an object: by its name, the default, Keras 3.15 would compare logits.
        divergence: Any = keras.losses.KLDivergence()
        default = keras.distillation.LogitsDistillation(4.0, loss=divergence)
        self.distillation_loss = distillation_loss or default
        self.distillation_weight = share
        self.built = True

    def call(self, inputs, training=None):
        return self.student(inputs, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        # Keras's annotations have tensors of every backend.
        loss: Any = super().compute_loss(x, y, y_pred, sample_weight, training)
        if not training:
            return loss
        taught = self._unrounded_answers(x)
        of_weights: Any = super().compute_loss(x, y, taught, sample_weight, training)
        teacher, answers = (_in_float32(one) for one in (taught, y_pred))
        teacher = keras.tree.map_structure(keras.ops.stop_gradient, teacher)
        apart: Any = self.distillation_loss.compute_loss(teacher, answers)
        share = self.distillation_weight
        return of_weights + (1.0 - share) * loss + share * apart

    def _unrounded_answers(self, x):
        """The answers of the weights as they are; what layers note as they compute stays that of
        the rounded ones.
        """
        noted = _notes(self.student)
        before = [keras.ops.copy(variable) for variable in noted]
        with unrounded():
            answers = self.student(x, training=True)
        for variable, value in zip(noted, before, strict=True):
            variable.assign(value)
        return answers


def _in_float32(outputs):
    return keras.tree.map_structure(lambda one: keras.ops.cast(one, "float32"), outputs)


def _notes(model: keras.Model) -> list[keras.Variable]:
    """Variables that a forward pass may change: statistics and ranges."""
    found = {}
    for layer in keras_compat.flattened_layers(model):
        trained = {id(variable) for variable in keras_compat.own_trainable_variables(layer)}
        # A quantizer's sums change on the way back.
        own = () if isinstance(layer, KernelQuantizer) else keras_compat.own_variables(layer)
        found |= {id(variable): variable for variable in own if id(variable) not in trained}
    return list(found.values())


def _ends_in_softmax(model: keras.Model) -> bool:
    try:
        return graph_view.ends_in_softmax(model)
    except graph_view.NotFollowedError:
        return False
