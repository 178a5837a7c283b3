"""Quantization after training by litert-quantizer.

The trained float model's file with its weights in int8 or int4.
"""

import pathlib
import re
from typing import Any

import keras
import numpy as np

from bmpq_tf.export.converter.convert import to_float_tflite
from bmpq_tf.export.converter.origin import described, layer_of
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.files import write_bytes
from bmpq_tf.model import keras_graph


def quantized_after_training(model: keras.Model, bits: int, folder: pathlib.Path) -> bytes:
    """Converts a float model and stores its weights in 8 or 4 bits, one scale a channel, computing
    in float.

    The first and the last weighted layers have 8 bits, as they do under every method.

    Args:
        model: a trained float model.
        bits: 8 or 4.
        folder: where the float file goes, which the quantizer reads.

    Returns:
        The quantized file's content. What the quantizer has no rule for (depthwise kernels in 4
        bits) stays float in it.
    """
    from litert_quantizer import quantizer, recipe_manager
    from litert_quantizer.qtyping import TFLOperationName

    path = folder / "float.tflite"
    write_bytes(path, to_float_tflite(model))
    recipe = recipe_manager.RecipeManager()
    recipe.add_weight_only_config(
        regex=".*", operation_name=TFLOperationName.ALL_SUPPORTED, num_bits=bits
    )
    for operator in _first_and_last(model, path.read_bytes()):
        # The last rule that fits wins.
        recipe.add_weight_only_config(
            regex=f"^{re.escape(operator)};",
            operation_name=TFLOperationName.ALL_SUPPORTED,
            num_bits=8,
        )
    return bytes(
        quantizer.Quantizer(str(path), recipe.get_quantization_recipe()).quantize().quantized_model
    )


def _first_and_last(model: keras.Model, content: bytes) -> list[str]:
    """The operators that read the kernels of the first and the last weighted layers, as
    litert-quantizer calls them: by what they give.
    """
    ends = {described(layer) for layers in keras_graph.first_and_last(model) for layer in layers}
    file = flatbuffer.parse(content)
    (subgraph,) = file.subgraphs
    found = []
    for operator in subgraph.operators:
        tensors = [subgraph.tensors[index] for index in operator.inputs if index >= 0]
        constants = [
            tensor
            for tensor in tensors
            if len(tensor.shape) >= 2 and flatbuffer.constant(file, tensor) is not None
        ]
        if any(layer_of(model, flatbuffer.tensor_name(tensor)) in ends for tensor in constants):
            found.append(
                ";".join(
                    flatbuffer.tensor_name(subgraph.tensors[index]) for index in operator.outputs
                )
            )
    return found


def file_sizes(content: bytes) -> dict[str, Any]:
    """Counts the parameter bits of a file that is not ours.

    Every constant of two axes or more, at the width that it is stored in.
    """
    model = flatbuffer.parse(content)
    stored = {}
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            values = (
                flatbuffer.constant(model, tensor)
                if tensor.shape is not None and len(tensor.shape) >= 2
                else None
            )
            if values is not None and (
                values.dtype == np.float32 or tensor.type in flatbuffer.PACKED_BITS
            ):
                stored[int(tensor.buffer)] = (
                    flatbuffer.tensor_name(tensor),
                    values.size,
                    flatbuffer.PACKED_BITS.get(tensor.type, 32),
                )
    bits = sum(size * width for _, size, width in stored.values())
    floats = 32 * sum(size for _, size, _ in stored.values())
    return {
        "parameter_bits": bits,
        "float_bits": floats,
        "compression": floats / bits,
        "widths": {name: width for name, _, width in stored.values()},
    }
