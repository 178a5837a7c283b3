"""How to build each registered layer, and inputs for it.

A new entry of the registry needs a line here.

A key is a class's name, with a variant after a slash; what an argument holds is made anew each time
where it is a function.
"""

import keras
import numpy as np

from bmpq_tf.layers.base import QuantizedLayer
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer
from bmpq_tf.layers.registry import registered
from bmpq_tf.model import keras_graph

ENTRIES = {entry.float_class.__name__: entry for entry in registered()}

EXAMPLES = {
    "Dense": ({"units": 3}, (5,)),
    "Conv2D": ({"filters": 3, "kernel_size": 3, "padding": "same"}, (5, 5, 2)),
    "DepthwiseConv2D": ({"kernel_size": 3, "depth_multiplier": 2, "padding": "same"}, (5, 5, 2)),
    "EinsumDense": (
        {"equation": "abc,cde->abde", "output_shape": (None, 2, 3), "bias_axes": "de"},
        (4, 5),
    ),
    "Embedding": ({"input_dim": 7, "output_dim": 3}, (4,)),
    "Conv1D": ({"filters": 3, "kernel_size": 3, "padding": "same"}, (5, 2)),
    "Conv3D": ({"filters": 3, "kernel_size": 2, "padding": "same"}, (3, 3, 3, 2)),
    "Conv1DTranspose": ({"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"}, (5, 2)),
    "Conv2DTranspose": (
        {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"},
        (4, 4, 2),
    ),
    "Conv3DTranspose": (
        {"filters": 3, "kernel_size": 2, "strides": 2, "padding": "same"},
        (3, 3, 3, 2),
    ),
    "DepthwiseConv1D": ({"kernel_size": 3, "depth_multiplier": 2, "padding": "same"}, (5, 2)),
    "SeparableConv1D": ({"filters": 3, "kernel_size": 3, "padding": "same"}, (5, 2)),
    "SeparableConv2D": ({"filters": 3, "kernel_size": 3, "padding": "same"}, (5, 5, 2)),
    "MultiHeadAttention": (
        {"num_heads": 2, "key_dim": 3, "value_dim": 2, "output_shape": 5, "use_gate": True},
        (4, 5),
    ),
    "MultiHeadAttention/plain": (
        {"num_heads": 2, "key_dim": 3, "use_bias": False, "flash_attention": False},
        (4, 5),
    ),
    "GroupedQueryAttention": (
        {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2},
        (4, 5),
    ),
    "LSTM": ({"units": 3, "return_sequences": True}, (4, 2)),
    "GRU": ({"units": 3}, (4, 2)),
    "SimpleRNN": ({"units": 3}, (4, 2)),
    "RNN": (
        {
            "cell": lambda: keras.layers.StackedRNNCells(
                [keras.layers.LSTMCell(3, name="a"), keras.layers.GRUCell(2, name="b")], name="s"
            )
        },
        (4, 2),
    ),
    "TimeDistributed": ({"layer": lambda: keras.layers.Dense(3, name="inside")}, (4, 2)),
    "TimeDistributed/dynamic": (
        {"layer": lambda: keras.layers.Conv1D(3, 2, name="inside")},
        (None, 3, 2),
    ),
    "Bidirectional": ({"layer": lambda: keras.layers.LSTM(3, name="lstm")}, (4, 2)),
}
# What the examples above hold, and what has no input of its own.
INSIDE = {"LSTMCell", "GRUCell", "SimpleRNNCell", "StackedRNNCells"}
_UNKNOWN_STEPS = 4


def class_name(name: str) -> str:
    """Returns the name of an example's Keras class."""
    return name.split("/")[0]


def example_arguments(name: str) -> dict:
    """Returns the constructor's arguments of an example, layers made anew."""
    return {key: value() if callable(value) else value for key, value in EXAMPLES[name][0].items()}


def example_inputs(name: str, count: int) -> np.ndarray:
    """Returns a batch of inputs for a layer."""
    generator = np.random.default_rng(0)
    shape = (count, *(size or _UNKNOWN_STEPS for size in EXAMPLES[name][1]))
    return (
        generator.integers(0, 7, shape).astype("int32")
        if name == "Embedding"
        else generator.standard_normal(shape).astype("float32")
    )


def call_arguments(name: str, inputs) -> tuple:
    """Returns what a layer is called with: attention takes a query and a value."""
    return (inputs, inputs) if "Attention" in name else (inputs,)


def kernels_of(layer) -> list[tuple[QuantizedLayer, keras.Variable, KernelQuantizer]]:
    """Every kernel in a layer, its own or of the layers inside, with who holds it."""
    return [
        (part, kernel, quantizer)
        for part in keras_graph.quantized_layers(layer)
        for kernel, quantizer in part.kernels()
    ]
