"""Programs that need a process of their own.

`replicas.py mirrored|one_process|worker OUT [INDEX PORT PORT]`, run by test_distribution.
"""
# ruff: noqa: E402

import json
import os
import pathlib
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
ROLE, OUT = sys.argv[1], pathlib.Path(sys.argv[2])
if ROLE == "worker":
    index, *ports = map(int, sys.argv[3:])
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": cluster, "task": {"type": "worker", "index": index}}
    )

import tensorflow as tf

if ROLE == "worker":
    # Before anything else of TensorFlow runs.
    STRATEGY = tf.distribute.MultiWorkerMirroredStrategy()
else:
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import keras
import numpy as np
from conftest import compiled, small_data, small_model

from bmpq_tf import BMPQCallback, quantize_model
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.model.kernels import model_kernels
from bmpq_tf.training import device_budget, distribution

IMAGES, LABELS = small_data()


def model_for(strategy, optimizer, policy="float32") -> keras.Model:
    keras.utils.set_random_seed(11)
    with strategy.scope():
        keras.config.set_dtype_policy(policy)
        float_model = small_model()
        # Keras keeps moving statistics for each worker otherwise.
        model = (
            keras.models.clone_model(float_model, clone_function=_synchronized)
            if ROLE != "mirrored"
            else float_model
        )
        model.set_weights(float_model.get_weights())
        model = compiled(
            quantize_model(model, (2, 4), pin="ends"), optimizer=optimizer(), metrics=["accuracy"]
        )
        keras.config.set_dtype_policy("float32")
    return model


def _synchronized(layer):
    if isinstance(layer, keras.layers.BatchNormalization):
        return type(layer).from_config({**layer.get_config(), "synchronized": True})
    return type(layer).from_config(layer.get_config())


def batches(size: int) -> tf.data.Dataset:
    options = tf.data.Options()
    # Each worker takes its part of every batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return (
        tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))
        .batch(size, drop_remainder=True)
        .with_options(options)
    )


def sums(model) -> dict:
    read = {state.kernel.path: state.quantizer.accumulated() for state in model_kernels(model)}
    return {
        f"{path} {name}": np.asarray(value).tolist()
        for path, sums in read.items()
        for name, value in sums._asdict().items()
    }


def mirrored() -> dict:
    """Two replicas, and one device that gets their parts one after the other."""
    said = {}
    one_device = tf.distribute.get_strategy()
    for name, strategy, batch in (
        ("float32 one", one_device, 8),
        ("float32 two", STRATEGY, 16),
        ("mixed_float16 two", STRATEGY, 16),
    ):
        model = model_for(strategy, lambda: keras.optimizers.SGD(0.0), name.split()[0])
        callback = BMPQCallback("10x", verbose=0)
        model.fit(
            IMAGES,
            LABELS,
            batch_size=batch,
            epochs=3,
            shuffle=False,
            verbose=0,
            callbacks=[callback],
        )
        said[name] = {"sums": sums(model), "history": callback.history}
        if name == "float32 two":
            said.update(round_trips(model))
    return {**said, **rounded()}


def rounded() -> dict:
    """Two replicas whose first batches have other ranges."""
    keras.utils.set_random_seed(11)
    with STRATEGY.scope():
        model = compiled(quantize_model(small_model(), activation_bits=8))
    model.fit(IMAGES, LABELS, batch_size=16, shuffle=False, verbose=0)
    quantizers = [
        layer for layer in model._flatten_layers() if isinstance(layer, ActivationQuantizer)
    ]
    return {"first_ranges": [quantizer.first_range.numpy().tolist() for quantizer in quantizers]}


def round_trips(model) -> dict:
    model.save(OUT.with_suffix(".keras"))
    alone = keras.models.load_model(OUT.with_suffix(".keras"))
    with STRATEGY.scope():
        again = keras.models.load_model(OUT.with_suffix(".keras"))
    said = {"saved": sums(model), "loaded alone": sums(alone), "loaded in scope": sums(again)}
    for state in model_kernels(again):
        state.quantizer.reset_accumulators()
    return {**said, "reset": sums(again)}


def trained() -> dict:
    """Real training: weights, widths and logs; the solver answers only where it may."""
    model = distribution.prepare_for_workers(
        model_for(STRATEGY, lambda: keras.optimizers.Adam(1e-2))
    )
    solved, allocate = [], device_budget.solve_allocation

    def counted(*arguments, **keywords):
        solved.append(1)
        return allocate(*arguments, **keywords)

    device_budget.solve_allocation = counted
    callback = BMPQCallback("10x")
    saving = keras.callbacks.ModelCheckpoint(OUT.with_suffix(".keras"))
    history = model.fit(
        batches(16),
        validation_data=batches(16),
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[callback, saving],
    )
    np.savez(
        OUT.with_suffix(".npz"), **{weight.path: np.asarray(weight) for weight in model.weights}
    )
    return {
        "history": callback.history,
        "logs": history.history,
        "solved": len(solved),
        "sums": sums(model),
    }


OUT.with_suffix(".json").write_text(json.dumps(mirrored() if ROLE == "mirrored" else trained()))
