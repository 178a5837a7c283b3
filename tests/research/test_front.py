"""The table of a front, worked out by hand."""

import pytest

from bmpq_research.experiments import front


def result(part, seed, accuracy, kilobytes, model="resnet8@1", files=True):
    method, _, budget = part.partition("/")
    told = {
        "cell": f"{model}/cifar10/{part}/seed{seed}",
        "status": "done",
        "config": {"seed": seed, "method": method, "budget": budget},
        "accuracy": {"test": accuracy},
        "parameter_bits": 8000 * kilobytes,
    }
    if files:
        told["device_files"] = {
            "integer": {"accuracy": {"test": accuracy - 0.001}},
            "micro": {"accuracy": {"test": accuracy - 0.002}},
        }
    return told


RESULTS = [
    result("float32", 0, 0.80, 309.4, files=False),
    result("float32", 1, 0.82, 309.4, files=False),
    result("bmpq/20 kB", 0, 0.79, 19.9),
    result("bmpq/20 kB", 1, 0.80, 20.1),
    result("bmpq/15 kB", 0, 0.78, 15.0, model="resnet8@0.75"),
]


def lines(results):
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in front.markdown(results).splitlines()
    ]


def test_points_are_paired_with_the_float_model_and_stand_by_size_with_the_peers_between():
    told = lines(RESULTS)
    ours = [line for line in told if not line[0].startswith("*")]
    assert ours[2][:4] == ["float32", "2", "309.4", "81.00 ± 1.41"]
    assert ours[3] == [
        *("bmpq, 20 kB", "2", "20.0", "79.50 ± 0.71", "-1.50 ± 0.50 (2)"),
        *("79.40 ± 0.71", "79.30 ± 0.71", "-1.70 ± 0.50 (2)"),
    ]
    assert ours[4] == [
        *("bmpq, 15 kB; resnet8@0.75", "1", "15.0", "78.00", "-2.00 (one seed)"),
        *("77.90", "77.80", "-2.20 (one seed)"),
    ]
    sizes = [float(line[2]) for line in told[2:]]
    assert sizes == sorted(sizes, reverse=True)
    assert ["*mixprec-pruning, 2 bits*", "", "19.0", "", "-14.3", "", "", ""] in told


def test_the_peer_stands_beside_its_own_network_only():
    others = [result("float32", 0, 0.9, 88.0, "ds_cnn@1", files=False)]
    assert len(lines(others)) == 3


def test_a_front_needs_the_float_model():
    with pytest.raises(ValueError, match="without one"):
        front.markdown(RESULTS[2:])
