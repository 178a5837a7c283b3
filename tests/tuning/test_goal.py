"""What good enough means: metrics and their directions, margins, first inputs."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import compiled, small_data, small_model

from bmpq_tf.tuning.goal import Goal, goal_for
from bmpq_tf.tuning.search_data import (
    check_better_than_guessing,
    first_inputs,
    fit_arguments,
    part_values,
)


def test_metrics_know_which_way_is_better():
    def own(y_true, y_pred):
        return keras.ops.mean(y_pred)

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
    # Also what an output called "under" would give.
    areas = [keras.metrics.MeanSquaredError(name="area"), keras.metrics.AUC(name="under_area")]
    names = ["mae", "RootMeanSquaredError", "R2Score", "FalsePositives"]
    model.compile("sgd", "mse", metrics=[*names, *areas, own])
    values = model.evaluate(np.eye(3), np.array([[0], [1], [0]]), verbose=0, return_dict=True)

    def goal(metric, direction=None):
        return goal_for(model, values, metric, direction, 2.0)

    natures = {
        name: (goal(name).direction, goal(name).is_share) for name in values if name != "own"
    }
    assert natures == {
        "loss": ("min", False),
        "mae": ("min", False),
        "RootMeanSquaredError": ("min", False),
        "R2Score": ("max", False),
        "FalsePositives": ("min", False),
        "area": ("min", False),
        "under_area": ("max", True),
    }
    with pytest.raises(ValueError, match=r"metric='own'. Say direction='max' or direction='min'"):
        goal("own")
    assert goal("own", "min").direction == "min"
    loss = Goal("loss", "min", False, 1.0, 0.1)
    assert (loss.is_met(1.1), loss.is_met(1.11), loss.is_met(0.2)) == (True, False, True)
    points = Goal("accuracy", "max", True, 0.9, 1.0)
    assert (points.is_met(0.89), points.is_met(0.889), points.is_met(0.99)) == (True, False, True)
    assert points.told(0.88) == "accuracy 88.00%, 2.00 points below float"
    assert loss.told(1.5) == "loss 1.5, 0.5 above float"


def test_a_margin_counts_the_standard_error_of_paired_parts():
    goal = Goal("accuracy", "max", True, 0.9, 1.0, 1.0, (0.8, 0.9, 1.0, 0.9))
    # Differences of 2, -2, 2, -2 points.
    error = goal.error((0.78, 0.92, 0.98, 0.92))
    assert error == pytest.approx(math.sqrt(16 / 3) / 2)
    assert goal.told(0.895, 0.4) == "accuracy 89.50%, 0.50 ± 0.40 points below float"
    assert (goal.is_met(0.895, 0.4), goal.is_met(0.895, 0.6)) == (True, False)
    assert goal.error(()) == 0


def test_the_first_inputs_of_a_data_set_are_those_of_its_batches():
    images, labels = small_data(50)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    for data in ((images, labels), batches):
        np.testing.assert_array_equal(first_inputs(fit_arguments(data, 8, "x"), 20), images[:20])


class Slices(keras.utils.PyDataset):
    """Its slices do not end in an IndexError."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(8 * index, 8 * index + 8)
        return self.images[part], self.labels[part]


def test_batches_of_a_data_set_are_judged_one_by_one():
    images, labels = small_data(24)
    model = compiled(small_model())
    values = part_values(model, fit_arguments(Slices(images, labels), 8, "x"), "loss")
    assert len(values) == 3
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    assert part_values(model, fit_arguments(batches, 8, "x"), "loss") == values
    assert part_values(model, fit_arguments(batches.take(1), 8, "x"), "loss") == ()


@pytest.mark.parametrize("one_hot", [False, True])
def test_guessing_is_the_share_of_the_most_frequent_label(one_hot):
    labels = np.repeat(np.arange(10), [11, *[10] * 9])
    labels = np.eye(10, dtype="int64")[labels] if one_hot else labels
    arguments = {"x": np.zeros((101, 1)), "y": labels}
    check_better_than_guessing(arguments, "accuracy", 0.12)
    with pytest.raises(ValueError, match=r"accuracy=10.80% .* has 10.89%"):
        check_better_than_guessing(arguments, "accuracy", 0.108)
    tags = {**arguments, "y": np.repeat([[1, 2, 2, 2]], 5, 0)}
    with pytest.raises(ValueError, match=r"has 75.00%"):
        check_better_than_guessing(tags, "accuracy", 0.7)
    # Several outputs, and labels that are no classes, have no most frequent one.
    for other in ([np.arange(4), np.zeros((4, 2))], np.ones((4, 2), int)):
        check_better_than_guessing({**arguments, "y": other}, "accuracy", 0.0)
