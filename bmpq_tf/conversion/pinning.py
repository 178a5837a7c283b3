"""Which layers are held at one width: by name, or because they stand at an end of the model and are
small (METHOD.md, "Pinned layers").
"""

import math
from collections.abc import Callable, Mapping

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.conversion.selectors import Layer, as_list, covered
from bmpq_tf.layers.registry import entry_for
from bmpq_tf.model import keras_graph

# Where 8 bits in place of 4 take a tenth of a 16x budget, the most that 2 bits could reach.
LARGEST_SHARE = 0.05
# Words that stand for the model's ends, and so name no layer.
WORDS = ("auto", "ends", "first", "last")


def pinned_and_large(
    model: keras.Model | None, pin, parts: list[Layer], is_open: Callable[[Layer], bool]
) -> tuple[set[int], dict[int, str]]:
    """Returns the ids of the layers that `pin` holds at one width, and what `"auto"` made of each
    end that it decided on: `"small"` (pinned too) or `"large"`.

    Args:
        model: the float model; `None` where `pin` asks for no end of it.
        pin: as `quantize_model` takes it.
        parts: the model's layers.
        is_open: whether a layer's kernels will be quantized, at widths that are not said otherwise.
    """
    selectors = as_list(pin)
    pinned = covered(
        [selector for selector in selectors if selector not in WORDS], parts, "pin"
    ) | _ends(model, [word for word in WORDS[1:] if word in selectors])
    if "auto" not in selectors:
        return pinned, {}
    ends = _ends(model, ["ends"]) - pinned
    sizes = {
        id(layer): _kernel_weights(layer) for layer in parts if id(layer) in ends and is_open(layer)
    }
    large = large_ends(sizes, _model_weights(parts))
    return pinned | (set(sizes) - large), {
        layer: "large" if layer in large else "small" for layer in sizes
    }


def large_ends(sizes: Mapping[int, int], model_weights: int) -> set[int]:
    """Returns the ends that are too large to pin; what is left is at most `LARGEST_SHARE` of the
    model's weights.

    The largest go first, and what is equal in size goes together, so that mirrored layers are
    treated alike.

    Args:
        sizes: how many weights the kernels of each end have.
        model_weights: how many the kernels of the whole model have.
    """
    small = dict(sizes)
    while sum(small.values()) > LARGEST_SHARE * model_weights:
        largest = max(small.values())
        small = {end: size for end, size in small.items() if size < largest}
    return set(sizes) - set(small)


def _ends(model: keras.Model | None, words: list[str]) -> set[int]:
    """The ids of the first or last layers with kernels, and of all layers inside them."""
    if not words or model is None:
        return set()
    first, last = keras_graph.first_and_last(model)
    ends = [*(first if words != ["last"] else ()), *(last if words != ["first"] else ())]
    return {id(part) for layer in ends for part in keras_compat.flattened_layers(layer)}


def _kernel_weights(layer: Layer) -> int:
    entry = entry_for(layer)
    assert entry is not None
    return sum(math.prod(getattr(layer, name).shape) for name in entry.kernel_channel_axes)


def _model_weights(parts: list[Layer]) -> int:
    kernels = {
        id(variable): math.prod(variable.shape)
        for layer in parts
        for variable in keras_graph.kernel_variables(layer)
    }
    return sum(kernels.values())
