"""A Keras model as a float TFLite model of builtin operators only."""

import keras
import tensorflow as tf

from bmpq_tf import graph


class ConversionError(RuntimeError):
    """TFLite has no builtin operator for something in the model."""


def to_float_tflite(model: keras.Model) -> bytes:
    """Converts a Keras model whose kernels are plain weights; batch and other unknown sizes stay dynamic.

    Raises:
        ConversionError: the converter refuses the model; the message holds its first line and the layers to look at.
    """
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=f"input_{number}") for number, tensor in enumerate(model.inputs)]

    @tf.function(input_signature=specs)
    def answer(*inputs):
        structured = graph.structured_inputs(model, list(inputs))
        return keras.tree.flatten(model(structured, training=False))

    # Without a trackable object the weights are frozen into constants, which folding and packing need.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([answer.get_concrete_function()])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        return converter.convert()
    except Exception as error:
        ours = ("keras.", "bmpq_tf.")
        custom = sorted({f"'{layer.name}' ({type(layer).__name__})" for layer in model.layers if not type(layer).__module__.startswith(ours)})
        suspects = f" Layers that are not Keras's own: {', '.join(custom)}." if custom else ""
        raise ConversionError(
            f"Model '{model.name}' does not convert to TFLite builtins: {str(error).strip().splitlines()[0]}.{suspects} "
            "Replace what has no builtin, or build it from Keras layers."
        ) from error
