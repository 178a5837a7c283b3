"""Which models can be converted at all."""

import keras

from bmpq_tf.model import keras_graph


def check_model(model) -> None:
    """Raises TypeError for what is no functional or sequential model, ValueError for one that is
    not built.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Expected a Keras 3 model. Received: model={model!r} (of type {type(model)})."
        )
    if not isinstance(model, keras.Sequential) and not keras_graph.is_graph(model):
        raise TypeError(
            f"Model '{model.name}' is a subclass of keras.Model ({type(model).__name__}), whose "
            "layers cannot be replaced from "
            "outside. Build it from the quantized layers instead, such as "
            "bmpq_tf.layers.QuantConv2D(32, 3, "
            "quantizer={'candidate_bits': (2, 4, 8)}) in place of keras.layers.Conv2D(32, 3); "
            "BMPQCallback finds them."
        )
    if not model.built:
        raise ValueError(
            f"Model '{model.name}' is not built, so its kernels have no shape yet. Give it an "
            "Input or call build()."
        )


def check_quantized(model) -> None:
    """Raises as `check_model`, and ValueError for a model without quantized layers."""
    check_model(model)
    if not keras_graph.quantized_layers(model):
        raise ValueError(
            f"Model '{model.name}' has no quantized layers. Make them with "
            "bmpq_tf.quantize_model(model)."
        )
