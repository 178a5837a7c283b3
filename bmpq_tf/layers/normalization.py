"""BatchNormalization by TensorFlow's fused kernel: the same answers, a faster training step."""

import keras
import tensorflow as tf

from bmpq_tf.layers.serialization import serializable


@serializable
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's BatchNormalization over the last axis of images, trained by TensorFlow's fused
    kernel.

    Keras computes moments and normalisation operation by operation, which is 15 to 28 % of a
    training step of these models on a CPU without XLA (2026-11-25, batches of 128). Weights,
    statistics, inference and thus export are Keras's; so is the training of layers that the kernel
    does not know (masks, other axes, renorm, synchronized statistics, no gamma or beta).

    Example:
        >>> outputs = bmpq_tf.layers.FusedBatchNormalization()(5.0 * images, training=True)
        >>> print(f"{np.std(outputs):.1f}")
        1.0
    """

    def call(self, inputs, training=None, mask=None):
        images = len(inputs.shape) == 4 and self.axis in (-1, 3) and mask is None
        if (
            not (training and self.trainable and images and self.scale and self.center)
            or self.renorm
            or self.synchronized
        ):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel tells the unbiased variance; Keras keeps the other.
        values = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], variance.dtype)
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance * (values - 1.0) / values),
        ):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))  # pyright: ignore[reportOptionalMemberAccess, reportOptionalOperand]
        return outputs
