"""Which models can be converted at all."""

import keras

from bmpq_tf.model import keras_graph


def check_model(model) -> None:
    """Raises TypeError for what is no Keras model, ValueError for a sequential one that is not
    built.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Expected a Keras 3 model. Received: model={model!r} (of type {type(model)})."
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            f"Model '{model.name}' is not built, so its kernels have no shape yet. Give it an "
            "Input or call build()."
        )


def check_quantized(model) -> None:
    """Raises as `check_model`, and ValueError for a model without quantized layers."""
    check_model(model)
    if not model.built:
        raise ValueError(
            f"Model '{model.name}' is not built, so its kernels have no values yet. Call it on a "
            "batch first."
        )
    if not keras_graph.quantized_layers(model):
        raise ValueError(
            f"Model '{model.name}' has no quantized layers. Make them with "
            "bmpq_tf.quantize_model(model)."
        )
