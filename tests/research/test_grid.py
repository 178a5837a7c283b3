"""From a config file to cells.

What is combined with what, and what is refused before anything trains.
"""

import pathlib

import pytest

from bmpq_research.experiments.grid import cells, file_name, read_grid

CONFIGS = sorted((pathlib.Path(__file__).parents[2] / "examples" / "configs").glob("*.yaml"))
BASE = {"model": "digits_cnn", "dataset": "digits", "epochs": 4, "seeds": [0, 1]}


def grid(*blocks, **shared):
    return cells({**BASE, **shared, "grid": list(blocks)})


def test_methods_budgets_and_seeds_are_combined():
    made = grid(
        {"methods": ["float32", "uniform3"]},
        {"methods": ["bmpq", "random"], "budgets": ["8x", "size of uniform3"], "seeds": [1]},
    )
    assert [cell.key for cell in made] == [
        "digits_cnn@1/digits/float32/seed0",
        "digits_cnn@1/digits/uniform3/seed0",
        "digits_cnn@1/digits/float32/seed1",
        "digits_cnn@1/digits/uniform3/seed1",
        "digits_cnn@1/digits/bmpq/8x/seed1",
        "digits_cnn@1/digits/random/8x/seed1",
        "digits_cnn@1/digits/bmpq/size of uniform3/seed1",
        "digits_cnn@1/digits/random/size of uniform3/seed1",
    ]
    assert made[-1].needs == ("digits_cnn@1/digits/uniform3/seed1",)
    assert made[4].config.epochs == 4


def test_a_block_has_models_and_settings_of_its_own():
    made = grid(
        {
            "methods": ["bmpq"],
            "models": ["resnet20@0.5", "digits_cnn"],
            "budgets": ["8x"],
            "candidate_bits": [2, 4],
            "weight_decay": "5e-4",
        },
        seeds=[3],
    )
    assert [cell.key for cell in made] == [
        "resnet20@0.5/digits/bmpq/8x[candidate_bits=2+4,weight_decay=0.0005]/seed3",
        "digits_cnn@1/digits/bmpq/8x[candidate_bits=2+4,weight_decay=0.0005]/seed3",
    ]
    config = made[0].config
    assert (
        config.model,
        config.channel_multiplier,
        config.candidate_bits,
        config.seed,
        config.weight_decay,
    ) == ("resnet20", 0.5, (2, 4), 3, 5e-4)
    assert made[0].settings["candidate_bits"] == [2, 4]
    assert "/" not in file_name(made[0].key)


def test_activations_have_a_width_of_their_own_or_none():
    made = [
        grid({"methods": ["uniform2"], "activation_bits": bits}, seeds=[0])[0]
        for bits in (8, 4, 2, "none", None)
    ]
    assert [cell.config.activation_bits for cell in made] == [8, 4, 2, 0, 0]
    assert made[0].part == "uniform2[activation_bits=8]"
    assert grid({"methods": ["uniform2"]}, activation_bits=4)[0].settings["activation_bits"] == 4


CASES = [
    (
        {"grid": [{"methods": ["hawq"]}]},
        r"Unknown method. Received: methods=\['hawq'\]. Known: float32, uniform8.*bmpq",
    ),
    (
        {"model": "alexnet"},
        r"Unknown model. Received: model='alexnet'. Known: autoencoder, digits_cnn",
    ),
    ({"dataset": "mnist"}, r"Unknown dataset. Received: dataset='mnist'. Known: digits"),
    ({"epoch": 3}, r"Unknown settings in the config. Received: epoch. Known: .*epochs"),
    (
        {"grid": [{"methods": ["float32"], "depth": 3}]},
        r"Unknown settings in a block of the grid. Received: depth. Known: methods, budgets, seeds",
    ),
    (
        {"candidate_bits": "all"},
        r"candidate_bits must be a sequence of integers. Received: candidate_bits='all'",
    ),
    ({"lr_warmup_epochs": "long"}, r"Expected a number. Received: lr_warmup_epochs='long'"),
    ({"grid": [{"methods": ["bmpq"]}]}, r"Method 'bmpq' needs a budget"),
    (
        {"grid": [{"methods": ["bmpq"], "budgets": ["lots"]}]},
        r"Cannot read the budget. Received: budget='lots'",
    ),
    (
        {"grid": [{"methods": ["bmpq"], "budgets": ["size of uniform3"]}]},
        r"needs digits_cnn@1/digits/uniform3/seed0",
    ),
    ({"grid": [{"methods": ["after_training_int8"]}]}, r"needs digits_cnn@1/digits/float32/seed0"),
    (
        {"grid": [{"methods": ["bmpq"], "budgets": ["8x"], "distillation": 0.5}]},
        r"needs digits_cnn@1/digits/float32/seed0",
    ),
    (
        {"grid": [{"methods": ["bmpq"], "budgets": ["20x"]}], "drop_channels": "squared"},
        r"under budgets of bytes\. Received: .*\['20x'\]",
    ),
    (
        {"grid": [{"methods": ["uniform2"]}], "drop_channels": "squared"},
        r"Channels are dropped by bmpq.*methods=\['uniform2'\]",
    ),
    (
        {"grid": [{"methods": ["tfmot_int8"]}], "precision": "mixed_bfloat16"},
        r"plain recipe only. Received: precision='mixed_bfloat16'",
    ),
    (
        {"grid": [{"methods": ["tfmot_int8"]}], "distillation": 0.5},
        r"tfmot_int8 trains by the plain recipe only. Received: distillation=0.5",
    ),
    ({"grid": []}, r"A config needs a `grid`"),
    ({"learning_rate": "fast"}, r"Expected a number. Received: learning_rate='fast'"),
    (
        {"activation_bits": 5},
        r"activation_bits must be None \(float\), 16, 8, 4 or 2. Received: activation_bits=5",
    ),
    (
        {"initial_widths": "narrow"},
        r"Unknown initial_widths. Received: initial_widths='narrow'. Known: widest, allocated",
    ),
    (
        {"initial_scale": "best"},
        r"Unknown initial_scale. Received: initial_scale='best'. Known: statistical, mse",
    ),
    (
        {"initial_scale": "mse", "scale": "max_abs"},
        r"Only learned scales have a start. Received: initial_scale='mse' with scale='max_abs'",
    ),
    (
        {"normalise_kernels": "yes"},
        r"Unknown normalise_kernels. Received: normalise_kernels='yes'. Known: True, False",
    ),
    ({"objective": "cubic"}, r"Unknown objective. .*Known: first_order, squared, joint"),
    (
        {"lr_restart": 2},
        r"restart is a share of the peak learning rate, from 0 to 1. Received: restart=2",
    ),
    (
        {"freeze_oscillations": 2},
        r"threshold is a share of the steps, between 0 and 1. Received: threshold=2",
    ),
    ({"seeds": ["one"]}, r"Seeds are whole numbers"),
    ({"epochs": "ten"}, r"epochs must be a whole number, 1 or more. Received: epochs='ten'"),
    ({"batch_size": 0}, r"batch_size must be a whole number, 1 or more. Received: batch_size=0"),
    ({"validation": -5}, r"validation must be a whole number, 0 or more. Received: validation=-5"),
    (
        {"channel_multiplier": -1},
        r"channel_multiplier must be a positive number. Received: channel_multiplier=-1",
    ),
    (
        {"learning_rate": None},
        r"learning_rate must be a positive number. Received: learning_rate=None",
    ),
    (
        {"grid": [{"methods": ["bmpq"], "budgets": ["8x"]}], "warmup_epochs": 4},
        r"fit is too short .* at least 5 epochs. Received: epochs=4",
    ),
    (
        {"grid": [{"methods": ["bmpq"], "budgets": [{"compression": 8}]}]},
        r"Cannot read the budget. Received: budget=\"{'compression': 8}\"",
    ),
]


# One test, because each costs the clearing of Keras's session.
def test_what_is_not_known_is_refused_with_what_is():
    for change, message in CASES:
        with pytest.raises(ValueError, match=message):
            cells({**BASE, "grid": [{"methods": ["uniform2"]}], **change})


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_grid(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("grid: [")
    with pytest.raises(ValueError, match="not YAML"):
        read_grid(tmp_path / "broken.yaml")


def test_the_configs_in_the_repository_are_grids_and_tell_their_command():
    assert len(CONFIGS) > 10
    for path in CONFIGS:
        assert read_grid(path)
        assert f"--config=examples/configs/{path.name}" in path.read_text()


def test_every_cell_of_the_papers_table_has_a_config():
    found = {
        cell.setting
        for path in CONFIGS
        for cell in read_grid(path)
        if cell.method == "bmpq" and cell.config.channel_multiplier == 1
    }
    assert {
        f"{model}@1/{dataset}"
        for model in ("vgg16", "resnet18")
        for dataset in ("cifar10", "cifar100", "tiny_imagenet")
    } <= found
