"""From a quantized Keras model back to a float one."""

from typing import Any

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.conversion.cloning import clone
from bmpq_tf.conversion.supported_models import check_quantized
from bmpq_tf.layers.in_place import float_in_place, unmark
from bmpq_tf.layers.inheritance import keras_parent
from bmpq_tf.layers.registry import quantized_entry_for
from bmpq_tf.layers.serialization import is_ours
from bmpq_tf.model import keras_graph

Layer = keras.layers.Layer


def dequantize_model(model: keras.Model, *, on_grid: bool = True) -> keras.Model:
    """Returns a copy of plain Keras layers whose kernels lie on the quantized model's grid; a
    subclassed model itself, whose layers become float ones where they stand.

    They need no bmpq_tf to load.

    Activations are float in it: no Keras layer rounds them, so where the model does, the copy
    answers a little differently.

    Args:
        model: from `quantize_model`, or built from quantized layers.
        on_grid: `False` copies the latent float kernels that training moved, unrounded, for another
            quantizer to round in its own way. The model was not trained to answer with those.

    Raises:
        TypeError, ValueError: as `quantize_model`; also a model without quantized layers.

    Example:
        >>> plain = bmpq_tf.dequantize_model(model)
        >>> type(model.get_layer("head")).__name__, type(plain.get_layer("head")).__name__
        ('QuantDense', 'Dense')
        >>> np.allclose(plain(images), model(images), atol=1e-5)
        True
    """
    check_quantized(model)
    if not keras_graph.is_graph(model):
        keras_compat.forget_compilation(model)
        return _float_inside(model, on_grid)

    def twin(layer: Layer, config: dict) -> Layer | None:
        entry = quantized_entry_for(layer)
        parent = keras_parent(layer) if is_ours(type(layer)) else None
        plain = entry.float_class if entry else parent
        told = {key: value for key, value in config.items() if key not in ("bits", "quantizer")}
        return plain.from_config(told) if plain else None

    copy = clone(model, twin, on_grid, inside=lambda layer, made: _float_inside(made, on_grid))
    unmark(copy)
    return copy


def _float_inside(model: Layer, on_grid: bool) -> Any:
    unmark(model)
    for part in keras_compat.flattened_layers(model):
        float_in_place(part, on_grid)
    return model
