"""Measurements of kernels, as training would make them."""

import numpy as np

from bmpq_tf import Measurement


def measured(seed=0, path="kernel", gain=1.0, shape=(5, 4)) -> Measurement:
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal(shape).astype("float32")
    gradient = gain * np.abs(generator.standard_normal((1, shape[-1]))) + 1e-3
    joint = np.broadcast_to(gradient, shape)
    return Measurement(
        path,
        weights,
        gradient,
        gradient**2,
        enbg=0.1,
        channel_axes=(-1,),
        weight_gradient_abs=joint,
    )
