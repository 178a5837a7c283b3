"""Training: images a second and peak memory of ours and of the peers, each beside its own float
network.
"""

import pathlib
import statistics
import tempfile
import time
import types

import keras
import numpy as np
import tensorflow as tf

from bmpq_research.benchmarks.measure import alternate, in_fresh_process, paired_ratio
from bmpq_research.benchmarks.peers.environment import PEERS, PeerUnavailableError, train_in_turn
from bmpq_research.benchmarks.peers.networks import NETWORKS
from bmpq_research.benchmarks.report import Result
from bmpq_tf.conversion.config import QuantizationConfig
from bmpq_tf.conversion.quantize import quantize_model
from bmpq_tf.layers import FusedBatchNormalization
from bmpq_tf.training.callback import BMPQCallback

_OURS = {
    "quantized": {"config": QuantizationConfig(track_sensitivity=False)},
    "with sensitivities": {},
    "with sensitivities and 8-bit activations": {"activation_bits": 8},
}
# XLA takes up to eight times as long on a processor, and its compilation counts as the warm-up: few
# rounds of one step tell enough.
_SETTINGS: dict[str, dict] = {
    "plain": {},
    "jit_compile": {"jit_compile": True, "rounds": 3, "steps": 1},
    "mixed_bfloat16": {"policy": "mixed_bfloat16", "steps": 1},
}
# What of the ratios is BatchNormalization alone.
_FUSED = "float, BatchNormalization fused"
_JUDGED = {
    "with sensitivities": "training {}",
    "with sensitivities and 8-bit activations": "training {}, 8-bit activations",
}
_EPOCH_IMAGES = 50_000  # of CIFAR-10: what a decision between two epochs is set against


def train(
    networks=tuple(NETWORKS), rounds=7, seconds=60.0, peers_folder: str | None = "runs/peers"
) -> list[Result]:
    """Measures every network: each setting (plain, XLA, bfloat16), the callback, memory, and the
    peers.

    Args:
        networks: names from `NETWORKS`.
        rounds: timed rounds of each setting.
        seconds: after which a setting starts no further round.
        peers_folder: where the peers' environments are; `None` leaves the peers out.
    """
    results = []
    for name in networks:
        rows, ratios = [], {}
        for setting, arguments in _SETTINGS.items():
            told, ratio = _setting(
                name, setting, **{"rounds": rounds, "seconds": seconds, **arguments}
            )
            rows += told
            ratios |= {f"{name}, {setting}, {key}": value for key, value in ratio.items()}
        results.append(Result(f"Training {name}, batch {NETWORKS[name][2]}", rows, ratios=ratios))
        results.append(Result(f"Peak memory of training {name}", _memory(name)))
        results.append(Result(f"Allocation before every epoch of {name}", [_callback(name)]))
        if peers_folder is not None:
            results.append(_peer(name, pathlib.Path(peers_folder), rounds, seconds))
    return results


def quick(rounds=7, seconds=25.0) -> list[Result]:
    """The ratios alone: every network at its batch size, plain, ours with sensitivities, and with
    8-bit activations too.
    """
    results = []
    for name in NETWORKS:
        rows, ratios = _setting(
            name, "plain", rounds=rounds, seconds=seconds, ours=tuple(_JUDGED), steps=1
        )
        results.append(
            Result(
                f"Training {name}, batch {NETWORKS[name][2]}",
                rows,
                ratios={told.format(name): ratios[key] for key, told in _JUDGED.items()},
            )
        )
    return results


def network(name: str, fused: bool = False) -> keras.Model:
    """Builds one of the benchmark's networks from Keras's own layers, or with BatchNormalization
    fused as `quantize_model` has it.
    """
    build, shape, _ = NETWORKS[name]
    inputs = keras.Input(shape)
    own = {"BatchNormalization": FusedBatchNormalization} if fused else {}
    layers = types.SimpleNamespace(**{**vars(keras.layers), **own})
    return keras.Model(inputs, build(layers, inputs), name=name)


def contestant(name: str, quantized: dict | None = None, jit_compile=False) -> keras.Model:
    """Builds and compiles a network.

    `quantized` are the arguments of `quantize_model`, `None` leaves it float.
    """
    return _compiled(
        network(name) if quantized is None else quantize_model(network(name), **quantized),
        jit_compile,
    )


def _compiled(model: keras.Model, jit_compile=False) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        loss,
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    return model


def batch(name: str, size: int | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns random images and labels as one batch."""
    _, shape, batch_size = NETWORKS[name]
    generator = np.random.default_rng(0)
    images = generator.standard_normal((size or batch_size, *shape))
    return tf.constant(images, tf.float32), tf.constant(
        generator.integers(0, 10, size or batch_size)
    )


def steps_of(model: keras.Model, data: tuple[tf.Tensor, tf.Tensor], steps: int):
    """Returns a turn of so many training steps on one batch, as `fit` makes them."""

    def turn():
        for _ in range(steps):
            model.train_on_batch(*data)

    return turn


def _setting(
    name,
    setting,
    *,
    rounds,
    seconds,
    ours=tuple(_OURS),
    steps=4,
    jit_compile=False,
    policy="float32",
):
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    models = {"float": contestant(name, jit_compile=jit_compile)}
    models |= {key: contestant(name, _OURS[key], jit_compile) for key in ours}
    models[_FUSED] = _compiled(network(name, fused=True), jit_compile)
    keras.config.set_dtype_policy(before)
    data = batch(name)
    times = alternate(
        {key: steps_of(model, data, steps) for key, model in models.items()}, rounds, seconds
    )
    ratios = {key: paired_ratio(times["float"], values) for key, values in times.items()}
    rows = [
        {
            "setting": setting,
            "contestant": key,
            "images/s": steps * len(data[1]) / statistics.median(values),
            "ratio to float": ratios[key],
            "rounds": len(values),
        }
        for key, values in times.items()
    ]
    keras.backend.clear_session()
    return rows, {key: value for key, value in ratios.items() if key != "float"}


def _memory(name: str, rounds: int = 3) -> list[dict]:
    """Medians of fresh processes.

    The order in which a step's operations run moves a peak by a few percent.
    """
    contestants = {"float": None, **_OURS}
    with tempfile.TemporaryDirectory() as folder:
        files = {
            key: str(pathlib.Path(folder, f"{number}.keras"))
            for number, key in enumerate(contestants)
        }
        for key, given in contestants.items():
            in_fresh_process(_saved, name, given, files[key])
        peaks = [
            {key: in_fresh_process(_three_steps, name, file)[1] for key, file in files.items()}
            for _ in range(rounds)
        ]
    median = {key: statistics.median(peak[key] for peak in peaks) for key in contestants}
    return [
        {
            "contestant": key,
            "peak MB": peak,
            "ratio to float": peak / median["float"],
            "processes": rounds,
        }
        for key, peak in median.items()
    ]


def _saved(name: str, quantized: dict | None, path: str) -> None:
    contestant(name, quantized).save(path)


def _three_steps(name: str, path: str) -> None:
    # Loaded, so that training is measured and not the float original that a model was made from.
    steps_of(_compiled(keras.models.load_model(path, compile=False)), batch(name), 3)()


class _Timed(BMPQCallback):
    """The callback with its own time taken."""

    seconds, epochs = 0.0, 0

    def on_epoch_begin(self, epoch, logs=None):
        start = time.perf_counter()
        super().on_epoch_begin(epoch, logs)
        self.seconds += time.perf_counter() - start

    def on_epoch_end(self, epoch, logs=None):
        start = time.perf_counter()
        super().on_epoch_end(epoch, logs)
        self.seconds += time.perf_counter() - start
        self.epochs += 1


def _callback(name: str) -> dict:
    """Times the callback's hooks with a decision before every epoch but the first, against an epoch
    of 50,000 images.
    """
    model, data = contestant(name, {}), batch(name)
    steps_of(model, data, 1)()
    start = time.perf_counter()
    steps_of(model, data, 2)()
    epoch = (time.perf_counter() - start) / 2 / len(data[1]) * _EPOCH_IMAGES
    callback = _Timed("8x", settle_epochs=1, verbose=0)
    batches = tf.data.Dataset.from_tensors(data)
    model.fit(batches, epochs=4, shuffle=False, verbose=0, callbacks=[callback])
    each = callback.seconds / (callback.epochs - 1)
    keras.backend.clear_session()
    return {"seconds a decision": each, "seconds an epoch": epoch, "share": f"{each / epoch:.2%}"}


def _peer(name: str, folder: pathlib.Path, rounds: int, seconds: float) -> Result:
    rows, notes = [], []
    for peer in PEERS:
        try:
            times = train_in_turn(peer, folder, name, NETWORKS[name][2], 2, rounds, seconds)
        except PeerUnavailableError as error:
            notes.append(f"{peer} was skipped: {error}.")
            continue
        speed = {
            key: 2 * NETWORKS[name][2] / statistics.median(values) for key, values in times.items()
        }
        rows += [
            {
                "peer": peer,
                "what": key,
                "its float, images/s": speed["float"],
                "images/s": speed[key],
                "ratio to its float": paired_ratio(times["float"], times[key]),
                "rounds": len(times["float"]),
            }
            for key in times
            if key != "float"
        ]
    return Result(f"Peers training {name}, each beside its own float", rows, tuple(notes))
