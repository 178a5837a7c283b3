"""Fine-tuning of trained models: each way ends within its budget, and the model stays as it was."""

import keras
import numpy as np
import pytest

from bmpq_research.datasets import load_dataset
from bmpq_research.experiments.fine_tuning import WAYS, FineTuning, after_training, run
from bmpq_research.models import build_model


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def model(dataset):
    keras.utils.set_random_seed(0)
    built = build_model("digits_cnn", dataset.image_shape, dataset.num_classes, 0.5)
    mean, std = dataset.moments()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    built.compile("adam", loss, jit_compile=False)
    images, labels = dataset.train
    built.fit((images - mean) / std, labels, epochs=6, verbose=0)
    return built


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_way_ends_within_its_budget_and_near_the_float_model(way, model, dataset):
    before = [np.array(one) for one in model.get_weights()]
    told = run(model, dataset, FineTuning("8x", way, batch_size=32))
    floats = 4 * sum(one.size for one in before if one.ndim > 1)
    assert told["weight_bytes"] <= floats / 8
    assert told["keras"] > 0.8
    assert abs(told["keras"] - told["litert"]) < 0.02
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_int8_after_training_is_judged_beside(model, dataset):
    told = after_training(model, dataset)
    assert abs(told["float"] - told["int8 after training"]) < 0.05
