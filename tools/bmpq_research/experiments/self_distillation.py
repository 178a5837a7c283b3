"""The same weights, unrounded, teach the rounded ones in the same steps: every step goes forward
twice. After networks that are trained at several widths at once (any-precision networks, Yu et al.
2021), with one set of BatchNorm statistics, the rounded network's.
"""

from unittest import mock

import keras
import tensorflow as tf

from bmpq_tf.arithmetic import quantizers
from bmpq_tf.model.keras_graph import sublayers


def teach_itself(model: keras.Model) -> None:
    """Gives a quantized model, compiled with a `ClassificationLoss` that distils, a `train_step`
    whose teacher is the model itself without rounded kernels, which learns from the labels alone.
    """
    statistics = [
        moving
        for layer in sublayers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
        for moving in (layer.moving_mean, layer.moving_variance)
    ]

    def train_step(data):
        inputs, labels = data
        before = [tf.identity(moving.value) for moving in statistics]
        with tf.GradientTape() as tape:
            with mock.patch.object(quantizers, "fake_quantize", _unrounded):
                teacher = tf.cast(model(inputs, training=True), tf.float32)
            for moving, value in zip(statistics, before, strict=True):
                moving.assign(value)
            answers = model(inputs, training=True)
            targets = tf.concat(
                [tf.cast(labels, tf.float32)[:, None], tf.stop_gradient(teacher)], axis=1
            )
            of_labels = keras.losses.sparse_categorical_crossentropy(
                labels, teacher, from_logits=True
            )
            loss = model.compute_loss(inputs, targets, answers, training=True)
            both = loss + tf.reduce_mean(of_labels)
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(both, variables), variables)
        model._loss_tracker.update_state(loss, sample_weight=tf.shape(labels)[0])
        return model.compute_metrics(inputs, targets, answers)

    model.train_step = train_step


def _unrounded(weights, *args, **kwargs):
    return weights
