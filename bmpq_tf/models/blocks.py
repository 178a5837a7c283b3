"""What the models share."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("bmpq_tf")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's BatchNormalization over the last axis of images, trained by TensorFlow's fused kernel.

    Keras computes moments and normalisation operation by operation, which is 15 to 28 % of a training step of these models on a CPU
    without XLA (2026-11-25, batches of 128). Weights, statistics, inference and thus export are Keras's; so is the training of layers that
    the kernel does not know (masks, other axes, renorm, synchronized statistics, no gamma or beta).
    """

    def call(self, inputs, training=None, mask=None):
        images = len(inputs.shape) == 4 and self.axis in (-1, 3) and mask is None
        if not (training and self.trainable and images and self.scale and self.center) or self.renorm or self.synchronized:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=self.gamma, offset=self.beta, mean=[], variance=[], epsilon=self.epsilon, is_training=True
        )
        # The kernel tells the unbiased variance; Keras keeps the other.
        values = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], variance.dtype)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance * (values - 1.0) / values)):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        return outputs


def channels(base: int, width: float) -> int:
    """Returns a layer's channels under a width multiplier, at least 4."""
    return max(4, round(base * width))


def conv_bn(x, filters: int, kernel_size: int = 3, strides: int = 1, *, relu: bool = True, name: str):
    """Convolution without bias, BatchNorm and, where asked, ReLU."""
    x = keras.layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv")(x)
    x = FusedBatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x
