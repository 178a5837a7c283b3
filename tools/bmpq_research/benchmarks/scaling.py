"""Scaling: how a training step, an export and an allocation grow, as exponents; 1 is linear."""

import statistics

import keras
import numpy as np
import tensorflow as tf

from bmpq_research.benchmarks.allocate import problem
from bmpq_research.benchmarks.export import export, stack
from bmpq_research.benchmarks.measure import alternate, exponent, last_exponent
from bmpq_research.benchmarks.report import Result
from bmpq_research.benchmarks.train import steps_of
from bmpq_tf.allocation.solver import solve_allocation
from bmpq_tf.conversion.quantize import quantize_model


def scaling(rounds=5, seconds=20.0) -> list[Result]:
    """Grows one thing at a time and fits an exponent to the medians."""
    exported = export((1, 4, 16))[0].rows
    growths = {
        "training step, parameters": _training(
            [(weights, 4, 16) for weights in (0.25e6, 1e6, 4e6, 16e6)], 0, rounds, seconds
        ),
        "training step, layers": _training(
            [(layers * 0.1e6, layers, 16) for layers in (4, 8, 16, 32)], 1, rounds, seconds
        ),
        "training step, batch": _training(
            [(1e6, 4, size) for size in (8, 16, 32, 64)], 2, rounds, seconds
        ),
        "export, weights": (
            [row["weights"] for row in exported],
            [row["seconds"] for row in exported],
        ),
        "allocation, kernels": _allocation((100, 400, 1600, 6400), rounds, seconds),
    }
    rows = [
        {
            "what, by what": name,
            "exponent": exponent(sizes, times),
            "where steepest": last_exponent(sizes, times),
            "from": f"{sizes[0]:,.0f}: {times[0]:.3g} s",
            "to": f"{sizes[-1]:,.0f}: {times[-1]:.3g} s",
        }
        for name, (sizes, times) in growths.items()
    ]
    return [Result("Growth", rows)]


def _training(points, grown: int, rounds, seconds):
    generator = np.random.default_rng(0)
    turns = {}
    for weights, layers, size in points:
        model = quantize_model(stack(weights, layers))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1e-6, momentum=0.9), loss, jit_compile=False)
        data = (
            tf.constant(generator.standard_normal((size, 8, 8, 3)), tf.float32),
            tf.constant(generator.integers(0, 10, size)),
        )
        turns[(weights, layers, size)[grown]] = steps_of(model, data, 2)
    times = alternate(turns, rounds, seconds)
    keras.backend.clear_session()
    return list(times), [statistics.median(values) / 2 for values in times.values()]


def _allocation(counts, rounds, seconds):
    data = {count: problem(count, 7) for count in counts}
    times = alternate(
        {count: lambda count=count: solve_allocation(*data[count]) for count in counts},
        rounds,
        seconds,
    )
    return list(times), [statistics.median(values) for values in times.values()]
