"""int8 quantization-aware training by tfmot, which knows Keras 2 only.

It runs in a process of its own, through tf_keras.

`python -m bmpq_research.experiments.tfmot_peer request.json`, with TF_USE_LEGACY_KERAS=1;
`run_tfmot` starts it. Model, first weights, data, augmentation, optimizer and schedule are those of
the other methods. Weights and activations are 8 bits wide: tfmot's only scheme.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import tensorflow as tf

from bmpq_research.datasets import EpochCounter, ImageDataset, training_batches
from bmpq_research.experiments.epoch_log import DivergedError
from bmpq_research.experiments.train_config import TrainConfig
from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.files import write_bytes, write_text
from bmpq_tf.tuning.recipe import NOT_DECAYED

_KNOWN = (
    "InputLayer",
    "Conv2D",
    "DepthwiseConv2D",
    "BatchNormalization",
    "ReLU",
    "Add",
    "MaxPooling2D",
    "GlobalAveragePooling2D",
    "Dense",
    "Flatten",
)
# What the two versions of Keras call alike and mean alike.
_ARGUMENTS = (
    "filters",
    "kernel_size",
    "strides",
    "padding",
    "use_bias",
    "units",
    "activation",
    "momentum",
    "epsilon",
    "pool_size",
    "depth_multiplier",
)


class MissingPeerError(RuntimeError):
    """tfmot is not installed."""


def check_tfmot() -> None:
    """Raises `MissingPeerError` if tfmot or tf_keras is not installed."""
    if not all(
        importlib.util.find_spec(name) for name in ("tensorflow_model_optimization", "tf_keras")
    ):
        raise MissingPeerError(
            "tfmot is not installed. Install what the comparison with it needs: pip install "
            "'.[peers]'."
        )


def run_tfmot(
    model: keras.Model, dataset: ImageDataset, config: TrainConfig, folder: pathlib.Path
) -> tuple[bytes, list[dict]]:
    """Trains a float model's architecture with tfmot in another process.

    Args:
        model: a float Keras 3 model of the layers that the experiments' models have, with its first
            weights.
        dataset: trains on its `train`; the file's ranges come from training.
        config: the recipe and the seed.
        folder: where the two processes exchange files.

    Returns:
        The int8 `.tflite` file's content, and the logs of the epochs.

    Raises:
        MissingPeerError: tfmot or tf_keras is not installed.
        DivergedError: the loss stopped being finite.
        RuntimeError: the process failed.
    """
    check_tfmot()
    folder.mkdir(parents=True, exist_ok=True)
    mean, std = dataset.moments()
    np.savez(
        folder / "data.npz", images=dataset.train[0], labels=dataset.train[1], mean=mean, std=std
    )
    np.savez(
        folder / "weights.npz",
        **{variable.path: np.asarray(variable) for variable in model.weights},
    )
    request = {
        "layers": _layers(model),
        "config": {**dataclasses.asdict(config), "backup_dir": None},
        "augment": dataset.augment,
        "crop_padding": dataset.crop_padding,
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
    }
    write_text(folder / "request.json", json.dumps(request))
    # The research is not installed: the process finds it where this one did.
    environment = {
        **os.environ,
        "TF_USE_LEGACY_KERAS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [
        sys.executable,
        "-m",
        "bmpq_research.experiments.tfmot_peer",
        str(folder / "request.json"),
    ]
    # The pipe's other end closes when this process ends, however it ends.
    read, write = os.pipe()
    try:
        done = subprocess.run(command, env=environment, stdin=read, capture_output=True, text=True)
    finally:
        os.close(read)
        os.close(write)
    if done.returncode:
        raise RuntimeError(
            f"tfmot's process failed (exit code {done.returncode}). It says:\n{done.stderr[-3000:]}"
        )
    epochs = json.loads((folder / "epochs.json").read_text())
    bad = next((epoch for epoch in epochs if not np.isfinite(epoch["loss"])), None)
    if bad:
        raise DivergedError(bad["epoch"] + 1, bad["loss"])
    return (folder / "model.tflite").read_bytes(), epochs


def _layers(model: keras.Model) -> list[dict]:
    """A functional model as plain data.

    Class, name, arguments and the names of the layers before.
    """
    told = []
    for layer in model.layers:
        kind = next(
            (base.__name__ for base in type(layer).__mro__ if base.__name__ in _KNOWN), None
        )
        if kind is None:
            raise ValueError(
                f"tfmot's process does not know this layer. Received: '{layer.name}' "
                f"({type(layer).__name__}). Known: {', '.join(_KNOWN)}."
            )
        config = layer.get_config()
        parents = [
            keras_compat.producer(tensor)[0].name
            for node in keras_compat.calls_of(layer)
            for tensor in node.input_tensors
        ]
        arguments = {name: config[name] for name in _ARGUMENTS if name in config}
        told.append(
            {
                "class": kind,
                "name": layer.name,
                "arguments": arguments,
                "parents": parents,
                "shape": list(layer.output.shape[1:]),
            }
        )
    return told


def _build(layers: list[dict], weights):
    """Builds the model in tf_keras, with the given weights."""
    import tf_keras

    tensors, built = {}, {}
    for told in layers:
        if told["class"] == "InputLayer":
            tensors[told["name"]] = tf_keras.Input(told["shape"], name=told["name"])
            continue
        layer = getattr(tf_keras.layers, told["class"])(name=told["name"], **told["arguments"])
        inputs = [tensors[name] for name in told["parents"]]
        tensors[told["name"]] = layer(inputs if told["class"] == "Add" else inputs[0])
        built[told["name"]] = layer
    for layer in built.values():
        for variable in layer.weights:
            name = variable.name.split("/")[-1].split(":")[0]
            # Keras 2 calls a depthwise kernel by another name.
            name = "kernel" if name == "depthwise_kernel" else name
            variable.assign(weights[f"{layer.name}/{name}"])
    return tf_keras.Model(tensors[layers[0]["name"]], tensors[layers[-1]["name"]])


def _optimizer(config: dict, steps: int):
    import tf_keras

    epochs = config["epochs"]
    total = steps * epochs
    warmup = (
        min(steps, total // 10)
        if config["lr_warmup_epochs"] is None
        else round(steps * config["lr_warmup_epochs"])
    )
    peak = config["learning_rate"]
    rate = tf_keras.optimizers.schedules.CosineDecay(
        peak * 0.1 if warmup else peak,
        max(1, total - warmup),
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = tf_keras.optimizers.SGD(
        rate, momentum=0.9, nesterov=True, weight_decay=config["weight_decay"]
    )
    # The ranges of tfmot's fake quantizers are learned by averaging, not by gradients.
    optimizer.exclude_from_weight_decay(var_names=[*NOT_DECAYED, "min", "max"])
    return optimizer


def _end_with_parent() -> None:
    """Ends this process when nobody holds its standard input open any more.

    Another one may train in this folder from then on.
    """

    def wait():
        # A buffered read would hold a lock that Python wants at its end.
        os.read(sys.stdin.fileno(), 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(request_path: str) -> None:
    """Trains as a request says, from its last epoch if it was killed, and leaves `epochs.json` and
    `model.tflite` beside it.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

    folder = pathlib.Path(request_path).parent
    request = json.loads(pathlib.Path(request_path).read_text())
    config = request["config"]
    tf.config.threading.set_intra_op_parallelism_threads(request["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(request["threads"])
    data, weights = np.load(folder / "data.npz"), np.load(folder / "weights.npz")
    tf_keras.utils.set_random_seed(config["seed"])
    model = tfmot.quantization.keras.quantize_model(_build(request["layers"], weights))
    counter = EpochCounter()
    batches = training_batches(
        data["images"],
        data["labels"],
        batch_size=config["batch_size"],
        seed=config["seed"],
        counter=counter,
        mean=data["mean"],
        std=data["std"],
        augment=request["augment"],
        crop_padding=request["crop_padding"],
    )
    optimizer = _optimizer(config, len(batches))
    model.compile(
        optimizer,
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    optimizer.build(model.trainable_variables)
    backup = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=model, optimizer=optimizer), str(folder / "backup"), max_to_keep=2
    )
    trained = (
        int(backup.latest_checkpoint.rsplit("-", 1)[1]) if backup.restore_or_initialize() else 0
    )
    epochs = json.loads((folder / "epochs.json").read_text())[:trained] if trained else []
    for epoch in range(trained, config["epochs"]):
        counter.on_epoch_begin(epoch)
        wall, cpu = time.perf_counter(), time.process_time()
        logs = model.fit(batches, epochs=1, shuffle=False, verbose=0).history
        seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        epochs.append(
            {"epoch": epoch, **{name: values[0] for name, values in logs.items()}, **seconds}
        )
        write_text(folder / "epochs.json", json.dumps(epochs))
        if not np.isfinite(epochs[-1]["loss"]):
            return
        backup.save(checkpoint_number=epoch + 1)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    write_bytes(folder / "model.tflite", converter.convert())


if __name__ == "__main__":
    _end_with_parent()
    main(sys.argv[1])
