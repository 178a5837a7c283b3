"""What final widths were estimated to cost, by hand."""

import pytest

from bmpq_research.experiments.predictions import ESTIMATES, markdown

# Of candidates 2, 3 and 4; the stem is not open.
COSTS = {"a/kernel": [6.0, 2.0, 0.0], "b/kernel": [2.0, 1.0, 0.0]}
OTHER = {"a/kernel": [1.0, 0.5, 0.0], "b/kernel": [3.0, 1.0, 0.0]}


SETTINGS = {
    "model": "resnet20",
    "channel_multiplier": 0.5,
    "dataset": "cifar10",
    "candidate_bits": [2, 3, 4],
}


def judged(measured=COSTS, **settings):
    return {
        **SETTINGS,
        "costs": {
            **dict.fromkeys(ESTIMATES, COSTS),
            "error, first_order": OTHER,
            "measured": measured,
        },
        **settings,
    }


def result(part, seed, loss, widths=(32, 32), model="resnet20", epochs=True):
    method, _, budget = part.partition("/")
    return {
        "cell": f"{model}/cifar10/{part}/seed{seed}",
        "status": "done",
        "config": {
            "seed": seed,
            "method": method,
            "budget": budget or None,
            "granularity": "channel",
            **SETTINGS,
            "model": model,
        },
        "compression": 12.0,
        "epochs": [{"loss": 9.0}, {"loss": loss}] if epochs else [],
        "widths": {"stem/kernel": 8, **dict(zip(("a/kernel", "b/kernel"), widths, strict=True))},
    }


RESULTS = [
    result("float32", 0, 1.0),
    result("float32", 1, 2.0),
    result("bmpq/12x", 0, 1.1, (3, 2)),
    result("bmpq/12x", 1, 2.3, (3, 3)),
    result("bmpq/12x", 7, 9.9, (2, 2)),
    result("error/12x", 0, 1.35, (2, 4)),
    result("random/12x", 0, 1.4, (2, 3)),
    result("uniform2", 0, 1.5, (2, 2)),
    result("activation_density", 0, 1.0, (5, 2)),
    result("after_training_int4", 0, 1.0, (4, 4), epochs=False),
]


def test_shares_and_losses_are_paired_with_float_by_seed():
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in markdown(RESULTS, [judged()]).splitlines()
        if line
    ]
    lines = {name: rest for name, *rest in cells}
    own, error = (2 + ESTIMATES.index(name) for name in ("bmpq, first_order", "error, first_order"))
    # (2 + 2) / 8 and (2 + 1) / 8; (0.5 + 3) / 4 and (0.5 + 1) / 4. Seed 7 has no float run.
    assert lines["bmpq, 12x"][:2] == ["12.00x", "+0.2000 ± 0.1000 (2)"]
    assert (lines["bmpq, 12x"][own], lines["bmpq, 12x"][error]) == ("0.438", "0.625")
    assert lines["uniform2"][1:3] == ["+0.5000 (one seed)", "1.000"]
    assert not {"float32", "activation_density", "after_training_int4"} & set(lines)
    # Losses of 0.1, 0.3, 0.35 and 0.4 for shares of 4, 3, 6 and 7 eighths: 1 - 6 (1 + 1) / (4 *
    # 15); then 0.5 for all of them.
    assert lines["12x, 4 runs"][own - 2] == "0.80"
    assert lines["all, 5 runs"][own - 2] == "0.90"


def test_estimates_are_means_over_the_costs_seeds():
    table = markdown(
        RESULTS,
        [judged(), judged(measured={"a/kernel": [1.0, 0.0, 0.0], "b/kernel": [1.0, 0.0, 0.0]})],
    )
    # 6 / 8 and 1 / 2.
    assert next(line for line in table.splitlines() if line.startswith("| error, 12x")).endswith(
        " 0.625 |"
    )


@pytest.mark.parametrize(
    ("results", "costs", "message"),
    [
        (
            [*RESULTS, result("float32", 0, 1.0, model="vgg16")],
            judged(),
            "one model.*resnet20/cifar10, vgg16/cifar10",
        ),
        (RESULTS[2:], judged(), "without a run of float32"),
        (
            RESULTS,
            judged(channel_multiplier=1.0),
            "costs of channel_multiplier=1.0; the results have channel_multiplier=0.5",
        ),
        (
            RESULTS,
            judged(granularity="tensor"),
            "costs of granularity='tensor'; the results have granularity='channel'",
        ),
        (
            RESULTS,
            judged(model="vgg16", candidate_bits=[2, 3, 8]),
            r"model='vgg16', candidate_bits=\[2, 3, 8\]; .*model='resnet20', candidate_bits",
        ),
    ],
)
def test_costs_of_something_else_are_refused(results, costs, message):
    with pytest.raises(ValueError, match=message):
        markdown(results, [costs])
