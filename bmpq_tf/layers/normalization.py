"""BatchNormalization by TensorFlow's fused kernel: the same answers, a faster training step."""

import keras
import tensorflow as tf

from bmpq_tf.layers.serialization import serializable

# Smaller ones cuDNN does not take.
_SMALLEST_EPSILON = 1.001e-5


@serializable
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's BatchNormalization over the last axis, trained by TensorFlow's fused kernel.

    Keras computes moments and normalisation operation by operation, which takes three times as
    long on a CPU without XLA and holds more tensors for the backward pass (docs/performance.md).
    `quantize_model` puts it in the place of Keras's layer, `dequantize_model` takes it out.
    Weights, statistics, inference and thus export are Keras's; so is the training of layers that
    the kernel does not know (masks, other axes, renorm, synchronized statistics, 64 bits).

    Example:
        >>> outputs = bmpq_tf.layers.FusedBatchNormalization()(5.0 * images, training=True)
        >>> print(f"{np.std(outputs):.1f}")
        1.0
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and mask is None and self._is_known(inputs)):
            return super().call(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        images = inputs if len(inputs.shape) == 4 else tf.reshape(inputs, [-1, 1, 1, channels])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=images,
            scale=self.gamma if self.scale else tf.ones([channels]),
            offset=self.beta if self.center else tf.zeros([channels]),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel tells the unbiased variance; Keras keeps the other.
        values = tf.cast(tf.size(inputs) // channels, variance.dtype)
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance * (values - 1.0) / values),
        ):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))  # pyright: ignore[reportOptionalMemberAccess, reportOptionalOperand]
        if len(inputs.shape) == 4:
            return outputs
        return tf.ensure_shape(tf.reshape(outputs, tf.shape(inputs)), inputs.shape)

    def _is_known(self, inputs) -> bool:
        return (
            self.axis in (-1, len(inputs.shape) - 1)
            and inputs.dtype in (tf.float32, tf.float16, tf.bfloat16)
            # The kernel's factors are.
            and self.variable_dtype == "float32"
            and self.epsilon >= _SMALLEST_EPSILON
            and not (self.renorm or self.synchronized)
        )


def can_be_fused(layer) -> bool:
    """Whether a layer is Keras's own, and no class that is made from it."""
    return type(layer) is keras.layers.BatchNormalization
