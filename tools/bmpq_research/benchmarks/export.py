"""Export: seconds and added peak memory for models of 0.3 to 50 million weights."""

import pathlib
import tempfile
import time

import keras

from bmpq_research.benchmarks.measure import exponent, in_fresh_process, last_exponent
from bmpq_research.benchmarks.report import Result
from bmpq_research.memory import from_now_on, peak_memory
from bmpq_tf.conversion.quantize import quantize_model
from bmpq_tf.export.pipeline import export_tflite
from bmpq_tf.model.kernels import model_kernels

_MILLIONS = (0.3, 1, 3, 10, 25, 50)
_CHANNELS = 512


def export(millions=_MILLIONS) -> list[Result]:
    """Exports convolutional models at 2, 4 and 8 bits, each in a process of its own, so that its
    peak is its own.
    """
    rows = []
    for million in millions:
        (weights, seconds, added), _, _ = in_fresh_process(_export_once, million)
        rows.append(
            {
                "weights": weights,
                "seconds": seconds,
                "added peak MB": added,
                "times the float weights": added * 1e6 / (4 * weights),
            }
        )
    notes = ()
    if len(rows) > 1:
        sizes, seconds = [row["weights"] for row in rows], [row["seconds"] for row in rows]
        notes = (
            f"Seconds grow as weights to the {exponent(sizes, seconds):.2f}; "
            f"{last_exponent(sizes, seconds):.2f} where steepest.",
        )
    return [Result("Export to a packed file", rows, notes)]


def stack(weights: float, layers: int | None = None) -> keras.Model:
    """Builds 3x3 convolutions with about so many weights, on 8x8 images.

    Wide, or as deep as `layers` says.
    """
    layers = layers or max(1, round(weights / (9 * _CHANNELS**2)))
    width = max(4, round((weights / (9 * layers)) ** 0.5))
    inputs = x = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(width, 1)(x)
    for _ in range(layers):
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))


def _export_once(million: float) -> tuple[int, float, float]:
    model = quantize_model(stack(million * 1e6))
    states = model_kernels(model)
    for number, state in enumerate(states):
        candidates = state.kernel.candidates
        state.quantizer.set_width(candidates[number % len(candidates)], state.variable)
    weights = sum(state.kernel.weights for state in states)
    with tempfile.TemporaryDirectory() as folder:
        before, start = from_now_on(), time.perf_counter()
        export_tflite(model, pathlib.Path(folder) / "model.tflite")
        return weights, time.perf_counter() - start, (peak_memory() - before) / 1e6
