"""Inference: latency of one image in LiteRT, our file beside float and int8 files of the same network."""

import pathlib
import statistics
import tempfile

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf.benchmarks.measure import alternate, paired_ratio
from bmpq_tf.benchmarks.peers.networks import NETWORKS
from bmpq_tf.benchmarks.report import Result
from bmpq_tf.benchmarks.train import network
from bmpq_tf.export import export_tflite
from bmpq_tf.export.runtime import TFLiteModel
from bmpq_tf.quantize import quantize_model

_CALLS = 5


def infer(networks=("resnet20", "mobilenet_v2"), rounds=10, seconds=30.0) -> list[Result]:
    """Times every kind of file of each network with 1 and 2 threads, in turn."""
    results = []
    for name in networks:
        keras.utils.set_random_seed(0)
        files, rows = _files(name), []
        image = np.random.default_rng(0).standard_normal((1, *NETWORKS[name][1])).astype(np.float32)
        for threads in (1, 2):
            runtimes = {kind: TFLiteModel(content, threads) for kind, content in files.items()}
            times = alternate({kind: _calls(runtime, image) for kind, runtime in runtimes.items()}, rounds, seconds)
            rows += [
                {
                    "file": kind,
                    "threads": threads,
                    "milliseconds": 1000 * statistics.median(values) / _CALLS,
                    "ratio to float": paired_ratio(times["float"], values),
                    "bytes": len(files[kind]),
                }
                for kind, values in times.items()
            ]
        results.append(Result(f"Latency of {name}, one image", rows))
    return results


def _files(name: str) -> dict[str, bytes]:
    plain = network(name)
    files = {
        "float": _converted(plain),
        "int8 weights, dynamic range": _converted(plain, True),
        "int8, static": _converted(plain, True, NETWORKS[name][1]),
    }
    with tempfile.TemporaryDirectory() as folder:
        for bits in (2, 4, 8):
            path = pathlib.Path(folder) / f"{bits}.tflite"
            export_tflite(quantize_model(plain, (bits,)), path)
            files[f"ours, packed at {bits} bits"] = path.read_bytes()
    return files


def _converted(model: keras.Model, optimize=False, shape=None) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if optimize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if shape is not None:
        generator = np.random.default_rng(0)
        converter.representative_dataset = lambda: ([generator.standard_normal((1, *shape)).astype(np.float32)] for _ in range(20))
    return converter.convert()


def _calls(runtime: TFLiteModel, image: np.ndarray):
    def turn():
        for _ in range(_CALLS):
            runtime([image])

    return turn
