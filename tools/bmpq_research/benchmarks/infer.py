"""Inference: latency of one image in LiteRT, our three kinds of file beside float and int8 files of
the same network.
"""

import math
import pathlib
import statistics
import tempfile

import keras
import numpy as np

from bmpq_research.benchmarks import peer_files
from bmpq_research.benchmarks.measure import alternate, paired_ratio
from bmpq_research.benchmarks.peers.networks import NETWORKS
from bmpq_research.benchmarks.report import Result
from bmpq_research.benchmarks.train import network
from bmpq_tf.conversion.quantize import quantize_model
from bmpq_tf.export.kernels import storage
from bmpq_tf.export.pipeline import export_tflite
from bmpq_tf.export.tflite.interpreter import TFLiteModel

_CALLS = 5
_WIDTHS = (2, 4, 8)
_EXAMPLES = 20  # to calibrate integer files with
_NOTE = (
    'Above 1 is faster than float. "size": packed weights, dequantized when loaded, float '
    'arithmetic; "latency": int8 arithmetic, '
    'ranges of activations as they come; "integer": int8 throughout.'
)


def infer(networks=("resnet20", "mobilenet_v2"), rounds=10, seconds=30.0) -> list[Result]:
    """Times every kind of file of each network with 1 and 2 threads, in turn."""
    results = []
    for name in networks:
        keras.utils.set_random_seed(0)
        examples = (
            np.random.default_rng(0)
            .standard_normal((_EXAMPLES, *NETWORKS[name][1]))
            .astype(np.float32)
        )
        files, rows = _files(name, examples), []
        for threads in (1, 2):
            runtimes = {kind: TFLiteModel(content, threads) for kind, content in files.items()}
            times = alternate(
                {kind: _calls(runtime, examples[:1]) for kind, runtime in runtimes.items()},
                rounds,
                seconds,
            )
            rows += [
                {
                    "file": kind,
                    "threads": threads,
                    "milliseconds": 1000 * statistics.median(values) / _CALLS,
                    "ratio to float": paired_ratio(times["float32"], values),
                    "bytes": len(files[kind]),
                }
                for kind, values in times.items()
            ]
        results.append(Result(f"Latency of {name}, one image, random weights", rows, (_NOTE,)))
    return results


def _files(name: str, examples: np.ndarray) -> dict[str, bytes]:
    """Those of others by name, float first, and ours: each kind at each width."""
    plain = network(name)
    files = dict(peer_files.peer_files(plain, [examples]))
    with tempfile.TemporaryDirectory() as folder:
        for mode in storage.LITERT_MODES:
            for bits in _WIDTHS:
                path = pathlib.Path(folder) / f"{mode}_{bits}.tflite"
                calibration = examples if mode == "integer" else None
                # Untrained weights: the network's answers say nothing, so no bound on how far they
                # may move.
                tolerance = None if mode == "size" else math.inf
                model = quantize_model(plain, (bits,))
                export_tflite(
                    model,
                    path,
                    optimize_for=mode,
                    calibrate_with=calibration,
                    verify_with=examples[:2],
                    tolerance=tolerance,
                )
                files[f'ours, "{mode}", {bits} bits'] = path.read_bytes()
    return files


def _calls(runtime: TFLiteModel, image: np.ndarray):
    def turn():
        for _ in range(_CALLS):
            runtime([image])

    return turn
