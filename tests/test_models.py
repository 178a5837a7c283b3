"""The models are those of the papers: their sizes, their shapes, their names."""

import keras
import pytest

from bmpq_tf.models import build_model


@pytest.mark.parametrize(("name", "size"), [("vgg16", 14.7e6), ("resnet18", 11.2e6), ("resnet20", 0.27e6)])
def test_models_have_the_published_size(name, size):
    assert build_model(name, (32, 32, 3), 10).count_params() == pytest.approx(size, rel=0.02)


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "resnet20"])
def test_width_and_images_of_tiny_imagenet(name):
    model = build_model(name, (64, 64, 3), 200, width=0.25)
    assert model.output_shape == (None, 200)
    assert model.layers[1].filters == {"vgg16": 16, "resnet18": 16, "resnet20": 4}[name]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert not any(layer.use_bias for layer in convolutions)
    assert len(convolutions) == sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


def test_unknown_models_and_widths_are_named():
    with pytest.raises(ValueError, match=r"Received: model='alexnet'. Known: digits_cnn, resnet18, resnet20, vgg16"):
        build_model("alexnet", (8, 8, 1), 10)
    with pytest.raises(ValueError, match="width=0"):
        build_model("resnet20", (8, 8, 1), 10, width=0)


def test_digits_cnn_has_a_depthwise_layer():
    model = build_model("digits_cnn", (8, 8, 1), 10)
    assert any(isinstance(layer, keras.layers.DepthwiseConv2D) for layer in model.layers)
