"""Where a file leaves its float model: the first tensor that differs, and the worst."""

from collections.abc import Sequence

import numpy as np

from bmpq_tf.export.integer.biases import COARSE, coarse
from bmpq_tf.export.tflite.flatbuffer import parse
from bmpq_tf.export.tflite.inner_tensors import Exposed
from bmpq_tf.export.tflite.interpreter import Runtime, TFLiteModel
from bmpq_tf.wording import listed

_WORST = 3


def departures(
    floats: bytes,
    content: bytes,
    batch: Sequence[np.ndarray],
    xnnpack: bool = True,
    runtime: Runtime = TFLiteModel,
) -> dict[str, float]:
    """Returns by how much each tensor that both models compute differs, in the order of
    computation.

    The measure is the root mean square of the differences relative to that of the float model's
    tensor; infinite for NaN.
    """
    ours, theirs = (Exposed(one, xnnpack, runtime=runtime)(batch)[1] for one in (floats, content))
    found = {}
    for name in [name for name in ours if name in theirs]:
        if ours[name].shape == theirs[name].shape and ours[name].dtype.kind == "f":
            apart = np.square(ours[name] - theirs[name], dtype=np.float64).mean()
            size = np.square(ours[name], dtype=np.float64).mean()
            found[name] = (
                float(np.sqrt(apart / max(size, np.finfo(np.float64).tiny)))
                if np.isfinite(apart)
                else float("inf")
            )
    return found


def describe(
    floats: bytes,
    content: bytes,
    batch: Sequence[np.ndarray],
    limit: float,
    runtime: Runtime = TFLiteModel,
) -> str:
    """Returns a sentence about the first tensor that differs by more than `limit` and the worst
    ones, in the runtime that shows the most, and one about biases that the file holds too coarsely.
    """
    found, kernels = max(
        (
            (
                departures(floats, content, batch, xnnpack, runtime),
                "XNNPACK" if xnnpack else "the built-in kernels",
            )
            for xnnpack in (True, False)
        ),
        key=lambda pair: max(pair[0].values(), default=0.0),
    )
    beyond = [name for name, apart in found.items() if apart > limit]
    if not beyond:
        return "No single tensor differs by more than that."
    worst = sorted(found, key=lambda name: found[name], reverse=True)[:_WORST]
    told = ", ".join(f"'{_short(name)}' ({found[name]:.3g})" for name in worst)
    return (
        f"With {kernels}, the first tensor that differs is '{_short(beyond[0])}' "
        f"({found[beyond[0]]:.3g} of its size); the worst are {told}. {coarse_biases(content)}"
    ).rstrip()


def coarse_biases(content: bytes, least: float = COARSE) -> str:
    """Returns sentences about biases that a file rounds to so many steps of an output and more, or
    nothing.
    """
    found = coarse(parse(content), least).values()
    places = [f"'{_short(name)}' to {steps:.3g}" for name, steps in found]
    if not places:
        return ""
    return (
        f"Biases in front of these are rounded to so many steps of the output: {listed(places)}. "
        "A channel's scale is far above the others' there, most likely by its BatchNorm. Give such "
        "a kernel more bits with overrides=, if it has less than 8; under a budget of flash, more "
        "flash may be enough."
    )


def _short(name: str) -> str:
    """The converter joins the names of all that it fused."""
    return name.split(";")[0]
