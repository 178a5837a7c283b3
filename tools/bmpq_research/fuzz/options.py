"""Random ways to quantize and to train a model."""

import dataclasses
import math
from typing import Any

import keras

from bmpq_research.fuzz.blocks import Chance
from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.model.kernels import model_kernels


@dataclasses.dataclass(frozen=True)
class Options:
    """How one model is quantized.

    Attributes:
        quantize: the arguments of `quantize_model`.
        config: those of its `QuantizationConfig`.
        share: where the budget lies between the narrowest widths, 0, and the widest, 1.
        form: `"x"`, `"bits"` or `"kB"`.
    """

    quantize: dict[str, Any]
    config: dict[str, Any]
    share: float
    form: str


def random_options(seed: int, model: keras.Model) -> Options:
    """Returns the options of a seed."""
    chance = Chance(10_000_019 + seed)
    widths = [width for width in range(2, 9) if chance.happens(0.5)] or [chance.number(2, 8)]
    bits = chance.among(None, None, 8, 8, 4, 2)
    quantize: dict[str, Any] = {"candidate_bits": tuple(widths), "activation_bits": bits}
    quantize["pin"] = chance.among("auto", "auto", None, "first", "last", "ends")
    kernels = [
        layer.name for layer in model.layers if isinstance(layer, (keras.layers.Dense, _CONV))
    ]
    if kernels and chance.happens(0.3):
        quantize["overrides"] = {chance.among(*kernels): chance.among((4, 8), (2,), (3, 5))}
    elif len(kernels) > 1 and chance.happens(0.2):
        quantize["exclude"] = chance.among(*kernels)
    config = {
        "granularity": chance.among("tensor", "channel"),
        "scale": chance.among("learned", "learned", "statistical", "max_abs"),
    }
    # One in twenty asks for less than the narrowest widths take.
    share = -0.3 if chance.happens(0.05) else float(chance.generator.uniform(0.05, 1.0))
    return Options(quantize, config, share, chance.among("x", "x", "bits", "kB"))


def budget_of(options: Options, model: keras.Model) -> str:
    """Returns the budget, in words, of a quantized model."""
    kernels = [state.kernel for state in model_kernels(model)]
    least = sum(kernel.weights * min(kernel.candidates) for kernel in kernels)
    most = sum(kernel.weights * max(kernel.candidates) for kernel in kernels)
    weights = sum(kernel.weights for kernel in kernels)
    # Rounded up, so that the narrowest widths fit where the share is not negative.
    bits = least + options.share * max(most - least, 1 if options.share > 0 else least)
    if options.form == "x":
        return f"{math.floor(1e4 * FLOAT_BITS * weights / bits) / 1e4:.4f}x"
    if options.form == "bits":
        return f"{math.ceil(1e4 * bits / weights) / 1e4:.4f} bits"
    return f"{math.ceil(bits / 8) / 1e3} kB"


_CONV = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
