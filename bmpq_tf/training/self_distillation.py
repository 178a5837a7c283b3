"""`SelfDistiller`: the weights of a quantized model teach it before they are rounded."""

from typing import Any

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.arguments import real
from bmpq_tf.conversion.beyond_copies import is_traced
from bmpq_tf.conversion.supported_models import check_quantized
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer, unrounded
from bmpq_tf.model import graph_view

_TEMPERATURE = 4.0


class SelfDistiller(keras.Model):
    """Trains a quantized model that its own weights teach before they are rounded (after networks
    of several widths, Yu et al. 2021, arXiv:1911.07346).

    Every step goes forward twice. With the kernels as they are, the model learns from the labels
    alone; with rounded kernels it learns from the labels and from the first answers. Both move the
    same weights. A step takes about twice the time, no float model is needed, and the trained model
    is the one that is handed in: evaluate, save and export that one (METHOD.md, "Schedule").

    Compile and fit it as the model itself. `BMPQCallback` finds the model inside. Moving statistics
    are those of the rounded network; regularization counts in both passes, weights of examples and
    masks not in the distillation loss. The `loss` of training is the sum of all three losses,
    `val_loss` that of the labels. It has no config: give `ModelCheckpoint`
    `save_weights_only=True`, and read such a file with the trainer's `load_weights`. Models with
    `keras.RematScope` are not for it.

    Args:
        student: the quantized model, built.
        distillation_loss: a `keras.distillation.DistillationLoss` of final outputs, which tells how
            far the rounded answers are from the others; by default `LogitsDistillation` by
            divergence at a temperature of 4, for one output of logits of several classes.
        distillation_weight: share of it in what the rounded network learns from, 0 to 1.
        **kwargs: `keras.Model`'s own.

    Attributes:
        student: the model.

    Raises:
        TypeError: the student is no Keras model.
        ValueError: it is not built or not quantized, keeps states from batch to batch, or has code
            that TensorFlow traced; the weight is no share, or the loss is none, or none is given
            and the outputs are no logits (from `fit`, before a step, where only answers tell).

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
        _check_passes(student)
        _check_loss(student, distillation_loss)
        share = real(distillation_weight)
        if share is None or not 0 <= share <= 1:
            raise ValueError(
                "distillation_weight is a share, from 0 to 1. Received: "
                f"distillation_weight={distillation_weight!r}."
            )
        super().__init__(**kwargs)
        # The student says what is cast.
        self.autocast = False
        self.student = student
        if hasattr(student, "output_names"):
            self.output_names = list(student.output_names)
        # As an object: by its name, the default, Keras 3.15 would compare logits.
        divergence: Any = keras.losses.KLDivergence()
        self._is_by_logits = distillation_loss is None
        self.distillation_loss = distillation_loss or keras.distillation.LogitsDistillation(
            _TEMPERATURE, loss=divergence
        )
        self.distillation_weight = share
        self.built = True

    def call(self, inputs, training=None):
        return self.student(inputs, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        # Keras's annotations have tensors of every backend.
        loss: Any = super().compute_loss(x, y, y_pred, sample_weight, training)
        if not training:
            return loss
        if self._is_by_logits:
            _check_answers(y_pred)
        # What is noted on the way stays that of the rounded network.
        noted = [*_notes(self.student), *self.metrics_variables]
        before = [keras.ops.copy(variable) for variable in noted]
        with unrounded():
            taught = self.student(x, training=True)
        of_weights: Any = super().compute_loss(x, y, taught, sample_weight, training)
        for variable, value in zip(noted, before, strict=True):
            variable.assign(value)
        teacher, answers = (_in_float32(one) for one in (taught, y_pred))
        if self._is_by_logits:
            # Of one output, in whatever structure.
            (teacher,), (answers,) = map(keras.tree.flatten, (teacher, answers))
        teacher = keras.tree.map_structure(keras.ops.stop_gradient, teacher)
        apart: Any = self.distillation_loss.compute_loss(teacher, answers)
        share = self.distillation_weight
        return of_weights + (1.0 - share) * loss + share * apart

    def get_config(self):
        raise NotImplementedError(
            "A trainer has no config. Save its student, or weights alone, which the trainer loads: "
            "ModelCheckpoint(..., save_weights_only=True)."
        )


def _check_passes(student: keras.Model) -> None:
    """Raises ValueError for models that a second pass would see otherwise than the first."""
    for part in keras_compat.flattened_layers(student):
        if getattr(part, "stateful", False):
            raise ValueError(
                f"Layer '{part.name}' keeps its state from batch to batch, and each step goes "
                "forward twice. Received: stateful=True. Make it with stateful=False."
            )
        if is_traced(part):
            raise ValueError(
                f"The call of '{part.name}' ({type(part).__name__}) is a tf.function, which would "
                "not be traced again without rounding. Take the decorator off; fit traces it."
            )


def _check_loss(student: keras.Model, loss) -> None:
    if loss is None:
        if end := _end_in_probabilities(student):
            raise ValueError(
                f"Model '{student.name}' ends in a {end}, and the default distillation loss is "
                "for logits. Received: distillation_loss=None. Let the model end in logits, or "
                "give a keras.distillation.DistillationLoss of your own."
            )
        return
    layers = [getattr(loss, f"{one}_layer_name", None) for one in ("teacher", "student")]
    if not isinstance(loss, keras.distillation.DistillationLoss) or any(layers):
        raise ValueError(
            "distillation_loss is a keras.distillation.DistillationLoss of final outputs, such as "
            f"LogitsDistillation. Received: distillation_loss={loss!r}."
        )


def _check_answers(answers) -> None:
    """Raises ValueError where answers are no logits of classes, as far as their shapes tell."""
    shapes = [tuple(one.shape) for one in keras.tree.flatten(answers)]
    if len(shapes) > 1 or not shapes[0] or shapes[0][-1] == 1:
        losses = keras.tree.map_structure(lambda one: "mse", answers)
        raise ValueError(
            "The default distillation loss is for one output of logits of several classes. "
            f"Received: outputs of the shapes {', '.join(map(str, shapes))}. Give a "
            "keras.distillation.DistillationLoss with a loss for each output, such as "
            f"LogitsDistillation(loss={losses!r})."
        )


def _in_float32(outputs):
    return keras.tree.map_structure(lambda one: keras.ops.cast(one, "float32"), outputs)


def _notes(model: keras.Model) -> list[keras.Variable]:
    """Variables that a forward pass may change, such as moving statistics."""
    found = {}
    for layer in keras_compat.flattened_layers(model):
        trained = {id(variable) for variable in keras_compat.own_trainable_variables(layer)}
        # A quantizer's sums change on the way back.
        own = () if isinstance(layer, KernelQuantizer) else keras_compat.own_variables(layer)
        found |= {id(variable): variable for variable in own if id(variable) not in trained}
    return list(found.values())


def _end_in_probabilities(model: keras.Model) -> str:
    """What makes the answers probabilities, or empty."""
    try:
        if graph_view.ends_in_softmax(model):
            return "softmax"
        return "sigmoid" if graph_view.ends_in_sigmoid(model) else ""
    except graph_view.NotFollowedError:
        return ""
