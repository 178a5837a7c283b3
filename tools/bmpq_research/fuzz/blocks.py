"""Random pieces of networks: every layer of the registry, and what stands between them.

A block takes a `Chance` and a tensor, and returns a tensor, or `None` where it does not fit.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

layers = keras.layers
ACTIVATIONS = ("relu", "relu", "relu6", "linear", "swish", "gelu", "sigmoid", "tanh", "leaky_relu")
# A layer name that Keras has by rank: 1 for sequences, 2 for images, 3 for volumes.
_RANKS = (1, 2, 3)


class Chance:
    """Draws, and names for layers that are alike in every run of a seed."""

    def __init__(self, seed: int | tuple[int, ...]):
        self.generator = np.random.default_rng(seed)
        self._count = 0

    def among(self, *values: Any) -> Any:
        """Returns one of some values."""
        return values[self.generator.integers(len(values))]

    def number(self, low: int, high: int) -> int:
        """Returns a whole number between two, both included."""
        return int(self.generator.integers(low, high + 1))

    def happens(self, share: float) -> bool:
        """Whether something of this probability happens."""
        return bool(self.generator.random() < share)

    def name(self, kind: str) -> str:
        """Returns a new layer name."""
        self._count += 1
        return f"{kind}_{self._count}"


Block = Callable[[Chance, Any], Any]


def spatial(x) -> int:
    """Returns how many axes lie between a tensor's batch and its channels."""
    return len(x.shape) - 2


def _units(chance: Chance) -> int:
    return chance.among(2, 3, 4, 5, 7, 8)


def _activation(chance: Chance) -> str:
    return chance.among(*ACTIVATIONS)


def _window(chance: Chance, x) -> dict:
    """A kernel's size, strides or dilation, and padding, that fit a tensor."""
    rank, least = spatial(x), min(x.shape[1:-1])
    padding = chance.among("same", "valid")
    size = chance.number(1, min(3, least))
    step = {"strides": 1, "dilation_rate": 1}
    if least >= 4:
        step[chance.among("strides", "dilation_rate")] = chance.among(1, 1, 2)
    if padding == "valid" and (size - 1) * step["dilation_rate"] >= least:
        padding = "same"
    if rank == 1 and padding == "same" and chance.happens(0.3):
        padding = "causal"
    return {"kernel_size": size, "padding": padding, **step}


def dense(chance: Chance, x):
    return layers.Dense(
        _units(chance),
        activation=_activation(chance),
        use_bias=chance.happens(0.8),
        name=chance.name("dense"),
    )(x)


def conv(chance: Chance, x):
    rank = spatial(x)
    if rank not in _RANKS:
        return None
    channels = int(x.shape[-1])
    # TensorFlow has no convolution of volumes in groups.
    divisors = [n for n in range(1, channels + 1) if channels % n == 0] if rank < 3 else [1]
    groups = chance.among(1, chance.among(*divisors))
    return getattr(layers, f"Conv{rank}D")(
        groups * chance.number(1, 4),
        groups=groups,
        activation=_activation(chance),
        use_bias=chance.happens(0.7),
        name=chance.name("conv"),
        **_window(chance, x),
    )(x)


def transposed(chance: Chance, x):
    rank = spatial(x)
    if rank not in _RANKS or max(x.shape[1:-1]) > 8:
        return None
    return getattr(layers, f"Conv{rank}DTranspose")(
        chance.number(1, 5),
        kernel_size=chance.number(1, 3),
        strides=chance.among(1, 2),
        padding=chance.among("same", "valid"),
        activation=_activation(chance),
        name=chance.name("transposed"),
    )(x)


def depthwise(chance: Chance, x):
    rank = spatial(x)
    if rank not in (1, 2):
        return None
    window = _window(chance, x)
    window["padding"] = "same" if window["padding"] == "causal" else window["padding"]
    return getattr(layers, f"DepthwiseConv{rank}D")(
        depth_multiplier=chance.among(1, 1, 2, 3),
        activation=_activation(chance),
        name=chance.name("depthwise"),
        **window,
    )(x)


def separable(chance: Chance, x):
    rank = spatial(x)
    if rank not in (1, 2):
        return None
    return getattr(layers, f"SeparableConv{rank}D")(
        chance.number(1, 6),
        depth_multiplier=chance.among(1, 2),
        activation=_activation(chance),
        name=chance.name("separable"),
        **_window(chance, x),
    )(x)


def einsum(chance: Chance, x):
    units, heads = _units(chance), chance.number(1, 3)
    shapes = {
        0: [("ab,bc->ac", (units,)), ("ab,bcd->acd", (heads, units))],
        1: [
            ("abc,cd->abd", (None, units)),
            ("abc,cde->abde", (None, heads, units)),
            ("abc,bd->adc", (units, None)),
        ],
        2: [("abcd,de->abce", (None, None, units)), ("abcd,cde->abe", (None, units))],
    }
    if spatial(x) not in shapes:
        return None
    equation, output = chance.among(*shapes[spatial(x)])
    bias = chance.among(None, equation[-1])
    return layers.EinsumDense(equation, output, bias_axes=bias, name=chance.name("einsum"))(x)


def attention(chance: Chance, x):
    if spatial(x) != 1:
        return None
    name = chance.name("attention")
    if chance.happens(0.5):
        layer = layers.MultiHeadAttention(
            chance.number(1, 3), chance.number(1, 4), use_bias=chance.happens(0.5), name=name
        )
    else:
        groups = chance.number(1, 2)
        layer = layers.GroupQueryAttention(
            chance.number(1, 4), groups * chance.number(1, 2), groups, name=name
        )
    return layer(x, x)


def _cell(chance: Chance):
    kind = chance.among("LSTMCell", "GRUCell", "SimpleRNNCell")
    return getattr(layers, kind)(chance.number(1, 4), name=chance.name("cell"))


def recurrent(chance: Chance, x):
    if spatial(x) != 1:
        return None
    every = chance.happens(0.5)
    if chance.happens(0.3):
        cells = [_cell(chance) for _ in range(chance.number(1, 2))]
        cell = cells[0] if len(cells) == 1 else layers.StackedRNNCells(cells)
        return layers.RNN(cell, return_sequences=every, name=chance.name("rnn"))(x)
    kind = chance.among("LSTM", "GRU", "SimpleRNN")
    options = {"reset_after": chance.happens(0.5)} if kind == "GRU" else {}
    layer = getattr(layers, kind)(
        chance.number(1, 4), return_sequences=every, name=chance.name("recurrent"), **options
    )
    if chance.happens(0.4):
        merge = chance.among("concat", "sum", "mul", "ave")
        return layers.Bidirectional(layer, merge_mode=merge, name=chance.name("both"))(x)
    return layer(x)


def distributed(chance: Chance, x):
    if spatial(x) not in (1, 2, 3):
        return None
    if spatial(x) == 1:
        inner = layers.Dense(_units(chance), activation="relu", name=chance.name("inner"))
    else:
        kind = f"Conv{spatial(x) - 1}D"
        inner = getattr(layers, kind)(
            chance.number(1, 4), 2, padding="same", name=chance.name("inner")
        )
    return layers.TimeDistributed(inner, name=chance.name("distributed"))(x)


def normalise(chance: Chance, x):
    kind = chance.among("BatchNormalization", "BatchNormalization", "LayerNormalization")
    return getattr(layers, kind)(name=chance.name("norm"))(x)


def activate(chance: Chance, x):
    name = chance.name("activation")
    kinds = {
        "relu": lambda: layers.ReLU(name=name),
        "relu6": lambda: layers.ReLU(6, name=name),
        "leaky": lambda: layers.LeakyReLU(0.2, name=name),
        "softmax": lambda: layers.Softmax(name=name),
        "other": lambda: layers.Activation(
            chance.among("swish", "gelu", "sigmoid", "tanh", "hard_swish", "hard_sigmoid"),
            name=name,
        ),
    }
    return kinds[chance.among(*kinds)]()(x)


def pool(chance: Chance, x):
    rank = spatial(x)
    if rank not in _RANKS or min(x.shape[1:-1]) < 2:
        return None
    kind = chance.among("MaxPooling", "AveragePooling")
    return getattr(layers, f"{kind}{rank}D")(
        2, padding=chance.among("same", "valid"), name=chance.name("pool")
    )(x)


def resize(chance: Chance, x):
    rank = spatial(x)
    if rank not in (1, 2) or max(x.shape[1:-1]) > 6:
        return None
    kind = chance.among("UpSampling", "ZeroPadding")
    return getattr(layers, f"{kind}{rank}D")(chance.number(1, 2), name=chance.name("resize"))(x)


def reshape(chance: Chance, x):
    size = int(np.prod(x.shape[1:]))
    name = chance.name("reshape")
    if spatial(x) == 1 and chance.happens(0.5):
        return layers.Permute((2, 1), name=name)(x)
    if spatial(x) == 2:
        return layers.Reshape((x.shape[1] * x.shape[2], x.shape[3]), name=name)(x)
    if spatial(x) == 0 and size % 2 == 0 and size > 2:
        return layers.Reshape((size // 2, 2), name=name)(x)
    return None


def regularise(chance: Chance, x):
    return layers.Dropout(0.1, name=chance.name("dropout"))(x)


# Those with kernels come up more often than what stands between them.
WEIGHTED: tuple[Block, ...] = (
    dense,
    conv,
    conv,
    transposed,
    depthwise,
    separable,
    einsum,
    attention,
    recurrent,
    distributed,
)
BETWEEN: tuple[Block, ...] = (normalise, activate, activate, pool, resize, reshape, regularise)


def random_block(chance: Chance, x):
    """Returns what a random block that fits makes of a tensor."""
    while True:
        block = chance.among(*(WEIGHTED if chance.happens(0.6) else BETWEEN))
        result = block(chance, x)
        # Keras does not know every size that it could.
        if result is not None and None not in result.shape[1:]:
            return result
