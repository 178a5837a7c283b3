"""Small random models over Keras's activation functions, normalisations and merge layers, and which
kinds of files they give.
"""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np

import bmpq_tf
from bmpq_tf.export.kernels.storage import MODES

_SIDE, _STEPS, _CHANNELS, _EXAMPLES = 6, 12, 8, 48
_PLAIN = (
    *("relu", "leaky_relu", "relu6", "softmax", "celu", "elu", "selu", "softplus", "softsign"),
    *("squareplus", "soft_shrink", "sparse_plus", "silu", "gelu", "tanh", "tanh_shrink"),
    *("sigmoid", "exponential", "hard_sigmoid", "hard_silu", "hard_tanh", "hard_shrink", "mish"),
    *("log_softmax", "log_sigmoid", "sparsemax", "sparse_sigmoid", "linear"),
)


def _exact_gelu(values):
    return keras.activations.gelu(values, approximate=False)


def _threshold(values):
    return keras.activations.threshold(values, 0.2, 0.1)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one model.

    Attributes:
        seed: it makes the model again.
        blocks: what it is made of.
        files: by kind of file, the root mean square of its differences from Keras, relative, or why
            there is none.
        seconds: for all of them.
    """

    seed: int
    blocks: tuple[str, ...]
    files: dict[str, float | str]
    seconds: float


def activations() -> dict[str, Callable]:
    """Returns each activation function and activation layer, by name, as a function of a tensor."""
    layers = keras.layers
    made = {name: lambda x, name=name: layers.Activation(name)(x) for name in _PLAIN}
    made |= {
        "gelu, exact": lambda x: layers.Activation(_exact_gelu)(x),
        "threshold": lambda x: layers.Activation(_threshold)(x),
        "PReLU": lambda x: layers.PReLU("uniform")(x),
        "PReLU, shared": lambda x: layers.PReLU("uniform", shared_axes=[1])(x),
        "ELU": lambda x: layers.ELU(0.7)(x),
        "LeakyReLU": lambda x: layers.LeakyReLU(0.1)(x),
        "ReLU, all arguments": lambda x: layers.ReLU(3.0, 0.1, 0.2)(x),
        "ReLU, bounded": lambda x: layers.ReLU(1.5)(x),
        "Softmax over two axes": lambda x: layers.Softmax((-2, -1))(x),
    }
    return made


def normalisations() -> dict[str, Callable]:
    """Returns each normalisation layer, in its forms, by name."""
    layers = keras.layers
    return {
        "BatchNormalization": lambda x: layers.BatchNormalization()(x),
        "LayerNormalization": lambda x: layers.LayerNormalization()(x),
        "LayerNormalization over two axes": lambda x: layers.LayerNormalization((-2, -1))(x),
        "RMSNormalization": lambda x: layers.RMSNormalization()(x),
        "GroupNormalization": lambda x: layers.GroupNormalization(4)(x),
        "instance normalisation": lambda x: layers.GroupNormalization(-1)(x),
        "UnitNormalization": lambda x: layers.UnitNormalization()(x),
    }


def merges() -> dict[str, Callable]:
    """Returns each way of joining two tensors of one shape, by name."""
    layers = keras.layers
    several = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")
    made = {name: lambda *x, name=name: getattr(layers, name)()(list(x)) for name in several}
    flat = layers.Reshape((-1, _CHANNELS))
    made |= {
        "Dot": lambda *x: layers.Dot((2, 2))([flat(one) for one in x]),
        "Dot, normalised": lambda *x: layers.Dot((2, 2), normalize=True)([flat(one) for one in x]),
        "MultiHeadAttention": lambda *x: layers.MultiHeadAttention(2, 4)(*x),
        "Attention": lambda *x: layers.Attention()([flat(one) for one in x]),
        "AdditiveAttention": lambda *x: layers.AdditiveAttention()([flat(one) for one in x]),
    }
    return made


def random_model(seed: int) -> tuple[keras.Model, np.ndarray, tuple[str, ...]]:
    """Returns a quantized model, inputs for it, and the names of its blocks.

    Two to four layers with kernels, each with an activation or a normalisation or both, and in half
    of the models two branches that meet.
    """
    keras.utils.set_random_seed(seed)
    generator = np.random.default_rng(seed)
    is_image = bool(generator.integers(2))
    shape = (_SIDE, _SIDE, 3) if is_image else (_STEPS, 5)
    names: list[str] = []

    def kernel(x):
        layers = keras.layers
        convolution = layers.Conv2D if is_image else layers.Conv1D
        kind = generator.integers(3)
        return (
            layers.Dense(_CHANNELS)(x)
            if kind == 0
            else convolution(_CHANNELS, 3 if kind == 1 else 1, padding="same")(x)
        )

    def chosen(kinds: dict[str, Callable], *tensors):
        name = str(generator.choice(sorted(kinds)))
        names.append(name)
        return kinds[name](*tensors)

    inputs = keras.Input(shape)
    x = kernel(inputs)
    for _ in range(generator.integers(1, 3)):
        if generator.random() < 0.5:
            x = chosen(normalisations(), x)
        x = kernel(chosen(activations(), x))
    if generator.random() < 0.5:
        x = chosen(merges(), x, kernel(x))
    x = keras.layers.Flatten()(chosen(activations(), x)) if len(x.shape) > 2 else x
    model = bmpq_tf.quantize_model(
        keras.Model(inputs, keras.layers.Dense(4)(x)),
        (4, 8),
        pin=None,
        activation_bits=8 if generator.random() < 0.25 else None,
    )
    data = generator.standard_normal((_EXAMPLES, *shape)).astype("float32")
    model.compile("adam", "mse", jit_compile=False)
    model.fit(data, np.zeros((_EXAMPLES, 4)), verbose=0)
    return model, data, tuple(names)


def files(model: keras.Model, data: np.ndarray, kinds: Iterable[str]) -> dict[str, float | str]:
    """Exports a model to every kind of file; see `Outcome.files`."""
    found: dict[str, float | str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            options = {"calibrate_with": data} if kind in ("integer", "micro") else {}
            try:
                report = bmpq_tf.export_tflite(
                    model,
                    pathlib.Path(folder) / f"{kind}.tflite",
                    optimize_for=kind,
                    verify_with=data,
                    **options,
                )
                found[kind] = report.parity.rms
            except Exception as error:
                found[kind] = f"{type(error).__name__}: {error}"
    return found


def outcomes(seeds: Iterable[int], kinds: Iterable[str] = MODES) -> Iterator[Outcome]:
    """Yields what becomes of the model of each seed."""
    kinds = tuple(kinds)
    for seed in seeds:
        keras.utils.clear_session(free_memory=False)
        start = time.perf_counter()
        model, data, names = random_model(seed)
        found = files(model, data, kinds)
        yield Outcome(seed, names, found, time.perf_counter() - start)
