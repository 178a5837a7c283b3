"""Export, stage by stage: where the seconds of three kinds of network go, and how memory grows when
a process exports again and again.
"""

import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np

from bmpq_research.benchmarks.measure import in_fresh_process
from bmpq_research.benchmarks.report import Result
from bmpq_research.memory import from_now_on, peak_memory, present_memory
from bmpq_tf.conversion.quantize import quantize_model
from bmpq_tf.export.stages import STAGES
from bmpq_tf.export.state import ExportOptions, ExportState
from bmpq_tf.model.kernels import model_kernels

layers = keras.layers
EXPORTS = 50


def stages() -> list[Result]:
    """Exports each network in a process of its own, for the phone and in integers."""
    rows = []
    for name in NETWORKS:
        for kind in ("size", "integer"):
            (weights, seconds, added), _, _ = in_fresh_process(_staged, name, kind)
            shown = {stage: took for stage, took in seconds.items() if took >= 0.05}
            rows.append(
                {
                    "network": name,
                    "file": kind,
                    "weights": weights,
                    "seconds": sum(seconds.values()),
                    "added peak MB": added,
                    # TensorFlow's own tens of megabytes are more than a small network has.
                    "times the float weights": (
                        f"{added * 1e6 / (4 * weights):.1f}" if weights > 1e6 else "-"
                    ),
                    "stages": ", ".join(f"{stage} {took:.2f}" for stage, took in shown.items()),
                }
            )
    return [Result("Exports, stage by stage", rows)]


def repeated(exports: int = EXPORTS) -> list[Result]:
    """Exports a small network again and again in one process."""
    held, _, _ = in_fresh_process(_held, exports)
    rows = [{"exports": number, "resident MB": megabytes} for number, megabytes in held.items()]
    (first, low), (last, high) = list(held.items())[1], list(held.items())[-1]
    notes = (f"{(high - low) / (last - first):.1f} MB an export after the first ten.",)
    return [Result("Memory over exports in one process", rows, notes)]


def _resnet50() -> keras.Model:
    return keras.applications.ResNet50(weights=None, classifier_activation=None)


def _bilstm() -> keras.Model:
    steps = keras.Input((100, 16))
    return keras.Model(steps, layers.Dense(3)(layers.Bidirectional(layers.LSTM(32))(steps)))


def _mobilevit() -> keras.Model:
    """Inverted residuals, then attention over patches that are folded out and in again, as in
    MobileViT (Mehta & Rastegari 2022).
    """
    image = keras.Input((32, 32, 3))
    x = _normed(layers.Conv2D(16, 3, 2, padding="same", use_bias=False)(image), "swish")
    for filters, stride in ((16, 1), (24, 2)):
        channels = x.shape[-1]
        y = _normed(layers.Conv2D(2 * channels, 1, use_bias=False)(x), "swish")
        depthwise = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)
        y = _normed(layers.Conv2D(filters, 1, use_bias=False)(_normed(depthwise(y), "swish")))
        x = layers.Add()([x, y]) if y.shape == x.shape else y
    (height, width, channels), depth = x.shape[1:], 32
    y = layers.Conv2D(channels, 3, padding="same", activation="swish")(x)
    y = layers.Reshape((height // 2, 2, width // 2, 2, depth))(layers.Conv2D(depth, 1)(y))
    patches = (4, height * width // 4, depth)
    y = layers.Reshape(patches)(layers.Permute((2, 4, 1, 3, 5))(y))
    for _ in range(2):
        z = layers.LayerNormalization()(y)
        y = layers.Add()([y, layers.MultiHeadAttention(2, depth // 2, attention_axes=(2,))(z, z)])
        z = layers.Dense(2 * depth, activation="swish")(layers.LayerNormalization()(y))
        y = layers.Add()([y, layers.Dense(depth)(z)])
    y = layers.Permute((3, 1, 4, 2, 5))(layers.Reshape((2, 2, height // 2, width // 2, depth))(y))
    y = layers.Conv2D(channels, 1, activation="swish")(layers.Reshape((height, width, depth))(y))
    x = layers.Concatenate()([x, y])
    x = layers.Conv2D(channels, 3, padding="same", activation="swish")(x)
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def _normed(x, activation: str | None = None):
    x = layers.BatchNormalization()(x)
    return layers.Activation(activation)(x) if activation else x


# Name: the network, the width of its activations, examples that calibrate and verify.
NETWORKS: dict[str, tuple[Callable[[], keras.Model], int | None, int]] = {
    "ResNet50": (_resnet50, None, 8),
    "bidirectional LSTM, 100 steps": (_bilstm, None, 32),
    "MobileViT-like, 8-bit activations": (_mobilevit, 8, 32),
}


def _made(name: str) -> tuple[keras.Model, np.ndarray]:
    """Returns the quantized network with widths in turn, after a training step, and data."""
    keras.utils.set_random_seed(0)
    build, activation_bits, examples = NETWORKS[name]
    model = quantize_model(build(), activation_bits=activation_bits)
    states = [state for state in model_kernels(model) if state.quantizer]
    for number, state in enumerate(states):
        candidates = state.kernel.candidates
        state.quantizer.set_width(candidates[number % len(candidates)], state.variable)
    data = np.random.default_rng(0).standard_normal((examples, *model.input_shape[1:]), "float32")
    model.compile("sgd", "mse", jit_compile=False)
    model.train_on_batch(data, np.zeros((examples, model.output_shape[-1])))
    return model, data


def _staged(name: str, kind: str) -> tuple[int, dict[str, float], float]:
    model, data = _made(name)
    weights = sum(state.kernel.weights for state in model_kernels(model))
    before, seconds = from_now_on(), {}
    for stage, took in _timed(model, kind, data):
        seconds[stage] = took
    return weights, seconds, (peak_memory() - before) / 1e6


def _timed(model: keras.Model, kind: str, data: np.ndarray) -> Iterator[tuple[str, float]]:
    """What `export_tflite` does, with a clock."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"calibrate_with": data} if kind == "integer" else {"verify_with": data}
        # Untrained networks round badly; here only the work counts.
        options = ExportOptions(
            pathlib.Path(folder) / "model.tflite", kind, tolerance=10.0, **given
        )
        state = ExportState(model, options)
        with state.until_end:
            for stage in STAGES:
                start = time.perf_counter()
                stage(state)
                yield stage.__name__.replace("_", " "), time.perf_counter() - start


def _held(exports: int) -> dict[int, float]:
    model, data = _made("MobileViT-like, 8-bit activations")
    held = {}
    for number in range(exports + 1):
        if number % 10 == 0:
            held[number] = present_memory() / 1e6
        for _ in _timed(model, "size", data[:4]):
            pass
    return held
