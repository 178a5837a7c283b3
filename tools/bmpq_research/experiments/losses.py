"""The losses of the experiments."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("bmpq_research")
class ClassificationLoss(keras.losses.Loss):
    """Cross-entropy on logits, for labels as the batches give them, with smoothed labels or a
    teacher where asked for.

    Args:
        label_smoothing: share of the target that is spread over all classes.
        distillation: share of the loss that is the divergence from the teacher (`with_teacher`'s
            batches), at `temperature` and times its square, so that its gradients keep their size
            (Hinton et al. 2015); the rest is the labels' cross-entropy.
        temperature: that both logits are divided by.
        **kwargs: `keras.losses.Loss`'s own.

    Raises:
        ValueError: a share is not from 0 to 1, or the temperature not positive.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        distillation: float = 0.0,
        temperature: float = 4.0,
        name="classification",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        for share, value in (("label_smoothing", label_smoothing), ("distillation", distillation)):
            if not 0 <= value <= 1:
                raise ValueError(f"{share} is a share, from 0 to 1. Received: {share}={value}.")
        if temperature <= 0:
            raise ValueError(
                "The temperature divides the logits, so it must be positive. Received: "
                f"temperature={temperature}."
            )
        self.label_smoothing = label_smoothing
        self.distillation = distillation
        self.temperature = temperature

    def call(self, y_true, y_pred):
        labels = y_true[:, 0] if self.distillation else keras.ops.reshape(y_true, [-1])
        one_hot = keras.ops.one_hot(keras.ops.cast(labels, "int32"), y_pred.shape[-1])
        value = keras.losses.categorical_crossentropy(
            one_hot, y_pred, from_logits=True, label_smoothing=self.label_smoothing
        )
        if not self.distillation:
            return value
        taught, answered = (
            keras.ops.softmax(logits / self.temperature) for logits in (y_true[:, 1:], y_pred)
        )
        apart = keras.losses.kl_divergence(taught, answered)
        return (1 - self.distillation) * value + self.distillation * self.temperature**2 * apart  # pyright: ignore[reportOperatorIssue]

    def get_config(self):
        own = {
            "label_smoothing": self.label_smoothing,
            "distillation": self.distillation,
            "temperature": self.temperature,
        }
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("bmpq_research")
def accuracy(y_true, y_pred):
    """Top-1 accuracy for `with_teacher`'s batches, whose labels come first."""
    return keras.metrics.sparse_categorical_accuracy(y_true[:, 0], y_pred)


def with_teacher(batches: tf.data.Dataset, teacher: keras.Model) -> tf.data.Dataset:
    """Puts a teacher's logits for the very images of a batch beside its labels.

    Float32 `(n, 1 + classes)`, the label first.
    """

    def answered(images, labels):
        logits = tf.cast(teacher(images, training=False), tf.float32)
        return images, tf.concat([tf.cast(labels, tf.float32)[:, None], logits], axis=1)

    return batches.map(answered).prefetch(2)
