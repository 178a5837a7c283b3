"""Two's-complement bit planes of quantized weights, and a gradient for each plane.

Training never materialises these tensors: `sum_i |dL/db_i| = (2^N - 1) * S * |g|`, so the layers
accumulate sums of `|g|`. The planes are for inspection, and the reference that the fast
accumulation is tested against (METHOD.md, "Bit gradients").
"""

import tensorflow as tf


def plane_weights(bits: int) -> tf.Tensor:
    """Returns what each bit is worth, float32 of shape `(bits,)`.

    `[1, 2, ..., 2^(N-2), -2^(N-1)]`, low bit first.
    """
    powers = [2.0**i for i in range(bits - 1)]
    return tf.constant([*powers, -(2.0 ** (bits - 1))], tf.float32)


def decompose(integers, bits: int) -> tf.Tensor:
    """Splits integers into their two's-complement bits.

    Args:
        integers: integers in `[-2^(bits-1), 2^(bits-1) - 1]`, of any shape and real dtype.
        bits: the bit-width `N`.

    Returns:
        float32 zeros and ones of shape `(bits, *integers.shape)`, low bit first, sign bit last.

    Raises:
        ValueError: an integer does not fit the width.
    """
    values = tf.cast(integers, tf.int32)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if not bool(tf.reduce_all((values >= low) & (values <= high))):
        raise ValueError(
            f"An integer does not fit {bits} bits two's complement, whose range is {low} to "
            f"{high}. "
            f"Received: minimum {int(tf.reduce_min(values))}, maximum {int(tf.reduce_max(values))}."
        )
    unsigned = tf.where(values < 0, values + 2**bits, values)
    planes = [tf.bitwise.bitwise_and(tf.bitwise.right_shift(unsigned, i), 1) for i in range(bits)]
    return tf.cast(tf.stack(planes), tf.float32)


@tf.custom_gradient
def compose(planes, scale):
    """Builds the quantized weight `S * (-2^(N-1) b_(N-1) + sum_i 2^i b_i)` from its bit planes.

    Args:
        planes: float32, shape `(bits, *kernel_shape)`, as `decompose` gives them.
        scale: float32, broadcastable to the kernel; positive.

    Returns:
        The quantized weights, float32 of the kernel's shape. The gradient of plane `i` is
        `2^i * S * g`, and `-2^(N-1) * S * g` for the sign plane (METHOD.md); the scale gets none.
    """
    worth = plane_weights(planes.shape[0])
    column = tf.reshape(worth, [-1] + [1] * (len(planes.shape) - 1))

    def grad(upstream):
        return column * (scale * upstream)[tf.newaxis], None

    return scale * tf.reduce_sum(column * planes, axis=0), grad


def bit_gradients(gradient, scale, bits: int) -> tf.Tensor:
    """Returns `dL/db_i` for every plane, shape `(bits, *kernel_shape)`, from `g = dL/dw_q`
    (METHOD.md).
    """
    planes = tf.zeros([bits, *gradient.shape], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(planes)
        weights = compose(planes, scale)
    return tape.gradient(weights, planes, output_gradients=gradient)  # pyright: ignore[reportArgumentType, reportCallIssue]


def normalised_bit_gradient(gradient, scale, bits: int) -> tf.Tensor:
    """Returns NBG, the mean of `|dL/db_i|` over a kernel's weights and bits.

    A float32 scalar (after BMPQ; our definition).
    """
    return tf.reduce_mean(tf.abs(bit_gradients(gradient, scale, bits)))
