"""What `pin="auto"` makes of the networks of the experiments."""

import keras
import numpy as np
import pytest

from bmpq_research.experiments.pins import Task, run
from bmpq_research.experiments.train_config import TrainConfig, check_config
from bmpq_research.experiments.training import quantized_model
from bmpq_research.models import build_model
from bmpq_tf import BMPQCallback, InfeasibleBudgetError, kernel_table, quantize_model

CIFAR10, CIFAR100, TINY_IMAGENET = ((32, 32, 3), 10), ((32, 32, 3), 100), ((64, 64, 3), 200)


def rows(model, pin: str):
    config = TrainConfig(pin=pin)
    return kernel_table(quantized_model(model, config, config.candidate_bits))


@pytest.mark.parametrize(
    ("name", "multiplier", "data"),
    [
        ("digits_cnn", 1.0, ((8, 8, 1), 10)),
        ("mobilenet", 0.25, CIFAR10),
        ("mobilenet_v1_025", 1.0, ((96, 96, 3), 2)),
        ("resnet8", 1.0, CIFAR10),
        ("resnet18", 0.25, CIFAR10),
        ("resnet18", 0.25, TINY_IMAGENET),
        ("resnet20", 0.25, CIFAR10),
        ("resnet20", 0.5, CIFAR10),
        ("vgg16", 0.25, CIFAR100),
        ("vgg16", 0.25, TINY_IMAGENET),
    ],
)
def test_the_networks_of_the_experiments_have_small_ends(name, multiplier, data):
    # So that results from before pin="auto" are those that it gives.
    model = build_model(name, *data, multiplier)
    automatic, ends = rows(model, "auto"), rows(model, "ends")
    told = [(row.path, row.candidates, row.pinned) for row in automatic]
    assert told == [(row.path, row.candidates, row.pinned) for row in ends]
    assert [row.end for row in automatic if row.pinned] == ["small", "small"]
    assert not any(row.pinned for row in rows(model, "none"))


@pytest.mark.parametrize(
    ("model", "expected", "reached"),
    [
        (
            ("ds_cnn", (49, 10, 1), 10),
            {"stem_conv/kernel": ("large", (4, 8)), "head/kernel": ("small", (8,))},
            ("11.12x", "13.28x"),
        ),
        (
            ("autoencoder", (640,), 0),
            {"dense1/kernel": ("large", (4, 8)), "head/kernel": ("large", (4, 8))},
            ("5.59x", "9.87x"),
        ),
    ],
)
def test_large_ends_do_not_hold_up_mlperf_tinys_networks(model, expected, reached):
    built = build_model(*model)
    told = {row.path: (row.end, row.candidates) for row in rows(built, "auto") if row.end}
    assert told == expected
    # The figures of METHOD.md.
    for pin, most in zip(("ends", "auto"), reached, strict=True):
        quantized = quantize_model(built, (2, 4, 8), pin=pin)
        quantized.compile("sgd", "mse")
        with pytest.raises(InfeasibleBudgetError, match=f"this model reaches is {most}"):
            BMPQCallback("16x").check(quantized, epochs=3)


def test_an_unknown_pin_is_named():
    with pytest.raises(ValueError, match=r"Unknown pin. Received: pin='middle'. Known: auto, ends"):
        check_config(TrainConfig(pin="middle"))


def test_runs_with_and_without_pins_are_judged_and_what_cannot_be_is_told():
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((64, 12)).astype("float32")

    def build():
        inputs = keras.Input((12,))
        x = keras.layers.Dense(12, activation="relu")(keras.layers.Dense(12)(inputs))
        return keras.Model(inputs, keras.layers.Dense(12)(x))

    task = Task(build, (vectors, vectors), (vectors, vectors), "mse", (), 1e-2, 16)
    pinned, automatic = (run(task, "7x", pin, 3, 0) for pin in ("ends", "auto"))
    assert "pinned at 8 bits" in pinned["error"]
    assert automatic["compression"] >= 7
    assert automatic["bits"][0] == automatic["bits"][2] == 4
    assert run(task, "int8", None, 3, 0)["compression"] == 4
    assert run(task, "float", None, 3, 0)["loss"] < np.var(vectors)
