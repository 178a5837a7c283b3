"""How to build each registered layer, and inputs for it; a new entry of the registry needs a line here."""

import numpy as np

EXAMPLES = {
    "Dense": ({"units": 3}, (5,)),
    "Conv2D": ({"filters": 3, "kernel_size": 3, "padding": "same"}, (5, 5, 2)),
    "DepthwiseConv2D": ({"kernel_size": 3, "depth_multiplier": 2, "padding": "same"}, (5, 5, 2)),
    "EinsumDense": ({"equation": "abc,cde->abde", "output_shape": (None, 2, 3), "bias_axes": "de"}, (4, 5)),
    "Embedding": ({"input_dim": 7, "output_dim": 3}, (4,)),
    "Conv1D": ({"filters": 3, "kernel_size": 3, "padding": "same"}, (5, 2)),
    "Conv3D": ({"filters": 3, "kernel_size": 2, "padding": "same"}, (3, 3, 3, 2)),
    "Conv1DTranspose": ({"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"}, (5, 2)),
    "Conv2DTranspose": ({"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"}, (4, 4, 2)),
    "DepthwiseConv1D": ({"kernel_size": 3, "depth_multiplier": 2, "padding": "same"}, (5, 2)),
    "SeparableConv1D": ({"filters": 3, "kernel_size": 3, "padding": "same"}, (5, 2)),
    "SeparableConv2D": ({"filters": 3, "kernel_size": 3, "padding": "same"}, (5, 5, 2)),
}


def example_inputs(name: str, count: int) -> np.ndarray:
    """Returns a batch of inputs for a layer."""
    generator = np.random.default_rng(0)
    shape = (count, *EXAMPLES[name][1])
    return generator.integers(0, 7, shape).astype("int32") if name == "Embedding" else generator.standard_normal(shape).astype("float32")
