"""The models are those of the papers: their sizes, their shapes, their names."""

import keras
import numpy as np
import pytest

from bmpq_research.models import build_model
from bmpq_tf.layers import FusedBatchNormalization


@pytest.mark.parametrize(
    ("name", "size"),
    [("vgg16", 14.7e6), ("resnet18", 11.2e6), ("resnet20", 0.27e6), ("mobilenet", 3.2e6)],
)
def test_models_have_the_published_size(name, size):
    assert build_model(name, (32, 32, 3), 10).count_params() == pytest.approx(size, rel=0.02)


@pytest.mark.parametrize(
    ("name", "stem"), [("vgg16", 16), ("resnet18", 16), ("resnet20", 4), ("mobilenet", 8)]
)
def test_width_and_images_of_tiny_imagenet(name, stem):
    model = build_model(name, (64, 64, 3), 200, channel_multiplier=0.25)
    assert model.output_shape == (None, 200)
    assert model.layers[1].filters == stem
    convolutions = [
        layer
        for layer in model.layers
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D))
    ]
    assert not any(layer.use_bias for layer in convolutions)
    assert len(convolutions) == sum(
        isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers
    )


def test_unknown_models_and_widths_are_named():
    with pytest.raises(
        ValueError,
        match=r"Received: model='alexnet'. Known: autoencoder, digits_cnn, ds_cnn, mobilenet, ",
    ):
        build_model("alexnet", (8, 8, 1), 10)
    with pytest.raises(ValueError, match="channel_multiplier=0"):
        build_model("resnet20", (8, 8, 1), 10, channel_multiplier=0)


def test_digits_cnn_has_a_depthwise_layer():
    model = build_model("digits_cnn", (8, 8, 1), 10)
    assert any(isinstance(layer, keras.layers.DepthwiseConv2D) for layer in model.layers)


def test_a_model_with_fused_batch_norm_trains_saves_and_loads(tmp_path):
    model = build_model("resnet20", (8, 8, 3), 10, channel_multiplier=0.25)
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, np.arange(8), batch_size=8, verbose=0)
    layer = next(layer for layer in model.layers if isinstance(layer, FusedBatchNormalization))
    assert np.all(np.asarray(layer.moving_mean) != 0), "statistics move"
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        keras.models.load_model(tmp_path / "model.keras").predict(images, verbose=0),
        model.predict(images, verbose=0),
    )
