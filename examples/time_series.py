"""Time series: forecasts of the Mackey-Glass series in integers, with activations of 8 and 16 bits.

    python examples/time_series.py --budget=5x --out=runs/time_series.tflite

Shows: regression, where an answer of 8 bits has 256 values and 16 bits pay; integer files, which
need `calibrate_with=`; the error of the file itself, in standard deviations of the series.
"""

import os
import pathlib

# Before TensorFlow is imported; its start-up messages would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# isort: split
import keras
import numpy as np
from absl import app, flags, logging

import bmpq_tf

flags.DEFINE_string("budget", "5x", "What the model may take: '5x', '6 bits', '4 kB'.")
flags.DEFINE_string("out", "runs/time_series.tflite", "Where the file of 16 bits goes.")

WINDOW, AHEAD = 32, 1  # steps that are seen, and how far ahead the forecast looks


def mackey_glass(steps: int) -> np.ndarray:
    """Returns a chaotic series that forecasts are often tried on, with mean 0 and deviation 1."""
    delay, x = 17, [1.2] * 18
    for _ in range(steps + 500):
        x.append(x[-1] + 0.2 * x[-1 - delay] / (1 + x[-1 - delay] ** 10) - 0.1 * x[-1])
    series = np.array(x[-steps:], "float32")
    return (series - series.mean()) / series.std()


def windows(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns what is seen (n, 32, 1) and what comes (n, 1)."""
    seen = np.lib.stride_tricks.sliding_window_view(series, WINDOW)[:-AHEAD]
    return np.ascontiguousarray(seen[..., None]), series[WINDOW + AHEAD - 1 :, None]


def forecaster() -> keras.Model:
    """Returns a network of three convolutions over time."""
    return keras.Sequential(
        [
            keras.Input((WINDOW, 1)),
            keras.layers.Conv1D(16, 5, strides=2, activation="relu"),
            keras.layers.Conv1D(32, 5, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(1),
        ],
        name="forecaster",
    )


def fit(model: keras.Model, data: tuple, rate: float, epochs: int, callbacks=()) -> None:
    """Trains with a rate that falls to zero."""
    steps = epochs * -(-len(data[0]) // 32)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)), "mse")
    model.fit(*data, epochs=epochs, callbacks=list(callbacks), verbose=2)


def error(forecast: np.ndarray, came: np.ndarray) -> float:
    """Returns the root mean square of what the forecast is off."""
    return float(np.sqrt(np.mean((forecast - came) ** 2)))


def main(_: list[str]) -> None:
    """Trains in float, fine-tunes with each width of activations, exports, and judges the files."""
    logging.set_verbosity(logging.ERROR)  # The converter talks at length.
    keras.utils.set_random_seed(0)
    series = mackey_glass(5000)
    train, (seen, came) = windows(series[:4000]), windows(series[4000:])
    float_model = forecaster()
    fit(float_model, train, rate=3e-3, epochs=30)
    told = [
        f"float32: {4 * float_model.count_params():,} bytes of weights, error "
        f"{error(float_model.predict(seen, verbose=0), came):.4f}"
    ]
    out = pathlib.Path(flags.FLAGS.out)
    for bits, path in ((8, out.with_stem(f"{out.stem}_8bit")), (16, out)):
        model = bmpq_tf.quantize_model(float_model, (4, 6, 8), activation_bits=bits)
        callback = bmpq_tf.BMPQCallback(flags.FLAGS.budget)
        fit(model, train, rate=1e-3, epochs=10, callbacks=[callback])
        bmpq_tf.summary(model)
        options = {"optimize_for": "integer", "calibrate_with": train[0][:500], "overwrite": True}
        report = bmpq_tf.export_tflite(model, path, verify_with=seen, **options)
        (forecast,) = bmpq_tf.run_tflite(path, seen)
        told.append(f"{path}: {report.tflite_bytes:,} bytes, error {error(forecast, came):.4f}")
    print("\n".join(told))


if __name__ == "__main__":
    app.run(main)
