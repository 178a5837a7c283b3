"""The models of the paper, of the demo, of phones and of microcontrollers, plain Keras, returning
logits.
"""

from collections.abc import Callable

import keras

from bmpq_research.models.digits import digits_cnn
from bmpq_research.models.mlperf_tiny import (
    autoencoder,
    ds_cnn,
    load_reference,
    mobilenet_v1_025,
    resnet8,
)
from bmpq_research.models.mobilenet import mobilenet
from bmpq_research.models.resnet import resnet18, resnet20
from bmpq_research.models.vgg import vgg16

MODELS: dict[str, Callable[..., keras.Model]] = {
    "autoencoder": autoencoder,
    "digits_cnn": digits_cnn,
    "ds_cnn": ds_cnn,
    "mobilenet": mobilenet,
    "mobilenet_v1_025": mobilenet_v1_025,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet8": resnet8,
    "vgg16": vgg16,
}


def build_model(
    name: str, input_shape: tuple[int, ...], num_classes: int, channel_multiplier: float = 1.0
) -> keras.Model:
    """Builds a model by name.

    Args:
        name: one of `MODELS`.
        input_shape: height, width, channels; how many values, for `autoencoder`.
        num_classes: how many logits; `autoencoder` has none.
        channel_multiplier: multiplies the channels of every layer but the last.

    Raises:
        ValueError: the name is not known, or the channel_multiplier is not positive.
    """
    if name not in MODELS:
        raise ValueError(f"Unknown model. Received: model={name!r}. Known: {', '.join(MODELS)}.")
    if channel_multiplier <= 0:
        raise ValueError(
            "The channel multiplier must be positive. Received: "
            f"channel_multiplier={channel_multiplier}."
        )
    return MODELS[name](input_shape, num_classes, channel_multiplier=channel_multiplier)


__all__ = [
    "MODELS",
    "autoencoder",
    "build_model",
    "digits_cnn",
    "ds_cnn",
    "load_reference",
    "mobilenet",
    "mobilenet_v1_025",
    "resnet8",
    "resnet18",
    "resnet20",
    "vgg16",
]
