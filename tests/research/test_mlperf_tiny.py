"""MLPerf Tiny's networks are its reference models: their sizes, their weights and their answers.

The files are those of github.com/mlcommons/tiny, benchmark/training/*/trained_models, all in one
folder, which BMPQ_MODELS_DIR names.
"""

import keras
import numpy as np
import pytest

from bmpq_research.datasets.spoken_digits import RATE, mfcc
from bmpq_research.models import (
    autoencoder,
    build_model,
    ds_cnn,
    load_reference,
    mobilenet_v1_025,
    resnet8,
)
from bmpq_tf import QuantizationConfig, export_tflite, quantize_model
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.interpreter import TFLiteModel

# By name: what builds it, the parameters of the reference, and those that train.
NETWORKS = {
    "resnet8": (resnet8, 78_666, 78_186),
    "ds_cnn": (ds_cnn, 24_908, 23_756),
    "mobilenet_v1_025": (mobilenet_v1_025, 221_794, 216_322),
    "autoencoder": (autoencoder, 269_992, 267_928),
}
SMALL = {
    "resnet8": ((8, 8, 3), 10),
    "ds_cnn": ((49, 10, 1), 10),
    "mobilenet_v1_025": ((32, 32, 3), 2),
    "autoencoder": ((640,), 640),
}


class DepthwiseOfKeras2(keras.layers.DepthwiseConv2D):
    """Takes the `groups` that configs of Keras 2 have."""

    def __init__(self, groups=1, **config):
        super().__init__(**config)


@pytest.mark.parametrize("name", NETWORKS)
def test_they_have_the_parameters_of_the_reference(name):
    build, parameters, trainable = NETWORKS[name]
    model = build()
    assert model.count_params() == parameters
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == trainable


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet8", "pretrainedResnet.h5"),
        ("mobilenet_v1_025", "vww_96.h5"),
        ("autoencoder", "ad01.h5"),
    ],
)
def test_with_the_weights_of_the_reference_they_answer_as_it_does(name, file, models_dir):
    model = NETWORKS[name][0]()
    load_reference(model, models_dir / file)
    reference = keras.models.load_model(
        models_dir / file,
        compile=False,
        custom_objects={"DepthwiseConv2D": DepthwiseOfKeras2},
    )
    inputs = np.random.default_rng(0).uniform(0, 255, (16, *model.input_shape[1:]))
    expected = reference.predict(inputs, verbose=0)
    answers = model.predict(inputs, verbose=0)
    if name != "autoencoder":
        answers = keras.ops.convert_to_numpy(keras.ops.softmax(answers))
    np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_with_the_weights_of_the_reference_ds_cnn_answers_as_its_int8_file_does(models_dir):
    """There is no .h5 file of it: its integers go into our kernels, and BatchNorm does nothing."""
    content = (models_dir / "kws_ref_model.tflite").read_bytes()
    model = ds_cnn()
    _load_integers(model, content)
    file = TFLiteModel(content)
    inputs = mfcc(_sweeps(64)).numpy()[..., None]
    (expected,) = file([inputs])
    # What an int8 input can say.
    scale, zero_point = file.inputs[0]["quantization"]
    inputs = scale * (np.clip(np.round(inputs / scale) + zero_point, -128, 127) - zero_point)
    answers = keras.ops.convert_to_numpy(keras.ops.softmax(model.predict(inputs, verbose=0)))
    assert len(set(expected.argmax(-1))) > 3, "the answers say something"
    assert np.mean(answers.argmax(-1) == expected.argmax(-1)) > 0.9
    assert np.abs(answers - expected).mean() < 0.015
    # Which of 25 steps are pooled hardly changes the answers.
    parsed = flatbuffer.parse(content)
    (pool,) = [
        operator.builtinOptions
        for operator in parsed.subgraphs[0].operators
        if hasattr(operator.builtinOptions, "filterHeight")
    ]
    assert model.get_layer("pool").pool_size == (pool.filterHeight, pool.filterWidth)


def test_weights_of_another_network_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Looked for .*ad01.h5.*mlcommons/tiny"):
        load_reference(autoencoder(), tmp_path / "ad01.h5")
    model = autoencoder()
    path = tmp_path / "model.h5"
    _save_as_keras_2(model, path)
    other = autoencoder()
    load_reference(other, path)
    for mine, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match=r"weight 0 has the shape \(640, 128\), where resnet8's"):
        load_reference(resnet8(), path)
    shorter = keras.Model(model.input, model.layers[-2].output, name="shorter")
    with pytest.raises(ValueError, match="with 56 weights, where shorter has 54"):
        load_reference(shorter, path)


def test_the_autoencoder_takes_no_images():
    assert build_model("autoencoder", (30,), 10).output_shape == (None, 30)
    with pytest.raises(ValueError, match=r"takes vectors.*Received: input_shape=\(8, 8, 1\)"):
        build_model("autoencoder", (8, 8, 1), 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_all_of_it_becomes_integers(name, tmp_path):
    shape, classes = SMALL[name]
    model = build_model(name, shape, classes)
    data = np.random.default_rng(0).standard_normal((32, *shape)).astype("float32")
    # Untrained, MobileNetV1 makes 10 % of 0.1 % of noise, whoever rounds its activations.
    _check_integers(model, data, tmp_path / "model.tflite", tolerance=0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file", "mean", "std"),
    [
        ("resnet8", "pretrainedResnet.h5", 120.0, 60.0),
        ("mobilenet_v1_025", "vww_96.h5", 0.5, 0.25),
        ("autoencoder", "ad01.h5", -30.0, 10.0),
    ],
)
def test_the_trained_reference_becomes_integers_that_answer_alike(
    name, file, mean, std, models_dir, tmp_path
):
    model = NETWORKS[name][0]()
    load_reference(model, models_dir / file)
    generator = np.random.default_rng(0)
    if name == "autoencoder":
        data = generator.normal(mean, std, (64, 640))
    else:
        coarse = generator.normal(mean, std, (64, 8, 8, 3))
        data = keras.ops.image.resize(coarse, model.input_shape[1:3], "bicubic")
    _check_integers(model, np.asarray(data, "float32"), tmp_path / "model.tflite", tolerance=None)


def _check_integers(model: keras.Model, data: np.ndarray, path, tolerance: float | None) -> None:
    """Rounds a network's activations, and looks for floats in its integer file."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    config = QuantizationConfig((4, 8), granularity="channel", activation_bits=8)
    model = quantize_model(model, config=config)
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    # Sets the ranges of activations.
    model.fit(data, np.zeros((len(data), *model.output_shape[1:])), batch_size=32, verbose=0)
    report = export_tflite(
        model,
        path,
        optimize_for="integer",
        calibrate_with=data,
        io_dtype="int8",
        tolerance=tolerance,
    )
    assert {layer.compute for layer in report.layers} == {"static"}
    tensors = flatbuffer.parse(path.read_bytes()).subgraphs[0].tensors
    assert not [tensor.name for tensor in tensors if tensor.type == flatbuffer.FLOAT32]


def _sweeps(count: int) -> np.ndarray:
    """Sounds of one second: tones that rise or fall, swell and fade, in a little noise."""
    generator = np.random.default_rng(0)
    seconds = np.arange(RATE) / RATE
    first, last = generator.uniform(100, 3000, (2, count, 1))
    tones = np.sin(2 * np.pi * (first + (last - first) * seconds / 2) * seconds)
    swell = np.exp(-(((seconds - generator.uniform(0.2, 0.8, (count, 1))) / 0.1) ** 2))
    return (tones * swell + 0.01 * generator.standard_normal((count, RATE))).astype("float32")


def _load_integers(model: keras.Model, content: bytes) -> None:
    """Gives a network the kernels and biases of an int8 file, which has them in the same order."""
    file = TFLiteModel(content)._interpreter
    file.allocate_tensors()
    details = {detail["index"]: detail for detail in file.get_tensor_details()}
    operators = [
        operator["inputs"] for operator in file._get_ops_details() if len(operator["inputs"]) == 3
    ]
    layers = [layer for layer in model.layers if "head" in layer.name or "_conv" in layer.name]
    for layer, (_, kernel, bias) in zip(layers, operators, strict=True):
        kernel, bias = (_dequantized(file, details[index]) for index in (kernel, bias))
        axes = {"DepthwiseConv2D": (1, 2, 3, 0), "Conv2D": (1, 2, 3, 0), "Dense": (1, 0)}
        layer.set_weights([kernel.transpose(axes[type(layer).__name__]), bias])
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(np.sqrt(layer.moving_variance + layer.epsilon))


def _dequantized(file, detail: dict) -> np.ndarray:
    found = detail["quantization_parameters"]
    shape = [1] * len(detail["shape"])
    shape[found["quantized_dimension"]] = -1
    return file.get_tensor(detail["index"]) * found["scales"].reshape(shape)


def _save_as_keras_2(model: keras.Model, path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [layer.name for layer in model.layers]
        for layer in model.layers:
            group = weights.create_group(layer.name)
            group.attrs["weight_names"] = [weight.path for weight in layer.weights]
            for weight in layer.weights:
                group[weight.path] = np.asarray(weight)
