"""Real architectures at mixed widths, trained for a moment, in every kind of file that their
operators allow.
"""

import warnings

import keras
import numpy as np
import pytest
from litert_quantizer import recipe
from size_bound import size_bound

import bmpq_tf
from bmpq_research.benchmarks import peer_files
from bmpq_tf.export.tflite.inspection import inspect_tflite
from bmpq_tf.export.verification import comparison
from bmpq_tf.model.kernels import model_kernels

layers = keras.layers


def application(name, size, **more):
    def build():
        return getattr(keras.applications, name)(
            input_shape=(size, size, 3),
            weights=None,
            classes=10,
            classifier_activation=None,
            **more,
        )

    return build


def resnet50():
    """Blocks that start near the identity, as they are trained.

    With a gamma of 1 the float network itself makes 8 % of 0.1 % of noise.
    """
    model = application("ResNet50", 64)()
    for layer in model.layers:
        if layer.name.endswith("_3_bn"):
            layer.gamma.assign(np.full(layer.gamma.shape, 0.2, "float32"))
    return model


def text_classifier():
    tokens = keras.Input((24,), dtype="int32", name="tokens")
    x = layers.Embedding(200, 32)(tokens)
    x = layers.LayerNormalization()(
        layers.Add()([x, layers.MultiHeadAttention(2, 16, name="attention")(x, x)])
    )
    x = layers.Dense(64, activation="gelu")(x)
    return keras.Model(
        tokens, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)), name="text_classifier"
    )


def time_series():
    series = keras.Input((64, 4), name="series")
    x = layers.Conv1D(16, 5, padding="causal", dilation_rate=2)(series)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.SeparableConv1D(24, 3, strides=2, activation="relu")(x)
    return keras.Model(
        series,
        layers.Dense(3)(
            layers.GlobalAveragePooling1D()(layers.Conv1D(32, 3, activation="relu")(x))
        ),
        name="time_series",
    )


def block(x, filters):
    return layers.ReLU()(
        layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(x))
    )


def u_net():
    image = keras.Input((32, 32, 3), name="image")
    one = block(image, 16)
    two = block(layers.MaxPooling2D()(one), 32)
    x = block(layers.MaxPooling2D()(two), 48)
    x = block(layers.Concatenate()([layers.Conv2DTranspose(32, 2, strides=2)(x), two]), 32)
    x = block(
        layers.Concatenate()([layers.Conv2DTranspose(16, 3, strides=2, padding="same")(x), one]), 16
    )
    return keras.Model(image, layers.Conv2D(5, 1)(x), name="u_net")


def two_in_two_out():
    image, features = keras.Input((16, 16, 3), name="image"), keras.Input((8,), name="features")
    x = layers.GlobalAveragePooling2D()(block(image, 24))
    x = layers.Concatenate()([x, layers.Dense(16, activation="relu")(features)])
    return keras.Model(
        [image, features],
        {"label": layers.Dense(5)(x), "value": layers.Dense(2, name="value")(x)},
        name="two_in_two_out",
    )


def nested():
    inner_image = keras.Input((16, 16, 8))
    inner = keras.Model(inner_image, block(block(inner_image, 16), 8), name="inner")
    image = keras.Input((16, 16, 3), name="image")
    x = inner(inner(block(image, 8)))
    return keras.Model(
        image, layers.Dense(5)(layers.Flatten()(layers.AveragePooling2D(4)(x))), name="nested"
    )


ZOO = {
    "MobileNetV2": application("MobileNetV2", 64),
    "MobileNetV3Small": application("MobileNetV3Small", 64, include_preprocessing=False),
    "EfficientNetV2B0": application("EfficientNetV2B0", 64, include_preprocessing=False),
    "ResNet50": resnet50,
    "DenseNet121": application("DenseNet121", 64),
    "VGG16": application("VGG16", 32),
    "Xception": application("Xception", 71),
    "text_classifier": text_classifier,
    "time_series": time_series,
    "u_net": u_net,
    "two_in_two_out": two_in_two_out,
    "nested": nested,
}


def examples(model, count):
    """Random inputs of a model, flat."""
    generator = np.random.default_rng(0)
    whole = [
        keras.backend.standardize_dtype(tensor.dtype).startswith("int") for tensor in model.inputs
    ]
    shapes = [(count, *tensor.shape[1:]) for tensor in model.inputs]
    return [
        generator.integers(0, 200, shape).astype("int32")
        if integers
        else generator.standard_normal(shape).astype("float32")
        for shape, integers in zip(shapes, whole, strict=True)
    ]


def trained(build, **more):
    """A quantized model at widths 2, 4, 8 in turn, after a few steps whose statistics its
    BatchNorms keep.
    """
    keras.utils.set_random_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bmpq_tf.SkippedLayersWarning)
        model = bmpq_tf.quantize_model(build(), (2, 4, 8), pin="ends", **more)
    for number, state in enumerate(state for state in model_kernels(model) if state.is_open):
        state.quantizer.set_width((8, 4, 2, 4)[number % 4], state.variable)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.5
    inputs = examples(model, 16)
    # Targets of the outputs' size: towards zero the outputs would cancel, and differences be
    # relative to nothing.
    generator = np.random.default_rng(1)
    targets = keras.tree.map_structure(
        lambda tensor: generator.standard_normal((16, *tensor.shape[1:])).astype("float32"),
        model.output,
    )
    model.compile(keras.optimizers.SGD(1e-5), "mse", jit_compile=False)
    structured = inputs[0] if len(inputs) == 1 else inputs
    model.fit(structured, targets, batch_size=8, epochs=4, verbose=0)
    return model, structured


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_a_real_architecture_in_every_kind_of_file(name, tmp_path):
    model, inputs = trained(ZOO[name])
    # A deep network that has learned nothing amplifies the rounding of its activations, so other
    # quantizers' files of the same weights, dynamic and static, say how much of a difference is
    # rounding.
    plain = bmpq_tf.dequantize_model(model)
    dynamic = peer_files.litert_quantizer_file(
        peer_files.to_float_tflite(plain), recipe.dynamic_wi8_afp32()
    )
    static = peer_files.converter_file(
        plain, inputs if isinstance(inputs, list) else [inputs], batch=None
    )
    noise = {
        mode: comparison.compare(model, file, None, mode).rms
        for mode, file in (("latency", dynamic), ("integer", static))
    }
    for mode in ("size", "latency", "integer"):
        path = tmp_path / f"{mode}.tflite"
        # Generated inputs are held to the mean only: the top-1 of a deep network that has learned
        # nothing is no decision. Generated tokens would be unlike those that the ranges come from.
        alike = inputs if name == "text_classifier" else None
        more = {
            "size": {"verify_with": inputs},
            "latency": {
                "tolerance": min(max(0.1, 1.5 * noise["latency"]), 0.9),
                "verify_with": alike,
            },
            "integer": {
                "tolerance": min(max(0.2, 1.5 * noise["integer"]), 0.9),
                "verify_with": alike,
                "calibrate_with": inputs,
            },
        }[mode]
        report = bmpq_tf.export_tflite(model, path, optimize_for=mode, **more)
        found = inspect_tflite(path)
        assert found.bytes <= size_bound(model, report)
        assert found.orphaned_bytes == 0
        assert found.custom_operators == ()
        quantized = [layer for layer in report.layers if layer.bits < 32]
        assert quantized
        assert all(layer.stored_bits < 32 for layer in quantized)
        if mode == "size":
            assert all(layer.stored_bits == layer.bits for layer in quantized)
            # Of thousands of positions one may be a tie.
            assert report.parity.agreement > 0.999


@pytest.mark.slow
def test_mobilenet_with_rounded_activations_in_integers(tmp_path):
    model, inputs = trained(ZOO["MobileNetV2"], activation_bits=8)
    path = tmp_path / "model.tflite"
    report = bmpq_tf.export_tflite(model, path, optimize_for="integer", calibrate_with=inputs)
    assert report.parity.rounded == 8
    found = inspect_tflite(path)
    assert set(found.operators) <= {
        "ADD",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "DEQUANTIZE",
        "FULLY_CONNECTED",
        "MEAN",
        "PAD",
        "QUANTIZE",
    }
    # The border's: what computes a tensor rounds it as its quantizer does.
    assert found.operators["DEQUANTIZE"] == 1
    assert found.bytes <= size_bound(model, report)
