"""Models that users bring."""

import keras
import numpy as np
import pytest

from bmpq_tf.cli.models import fitting, load_model

pytestmark = pytest.mark.quick


def test_images_get_the_rank_that_the_model_takes_or_are_refused():
    model = keras.Sequential([keras.Input((4, None, 1)), keras.layers.Conv2D(2, 3)])
    assert fitting(np.zeros((5, 4, 9)), model, "--data").shape == (5, 4, 9, 1)
    with pytest.raises(ValueError, match=r"images of --data are not .* \(5, 3, 9, 1\), and the"):
        fitting(np.zeros((5, 3, 9)), model, "--data")


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet")
def test_a_model_that_is_not_built_is_refused_in_words(tmp_path):
    keras.Sequential([keras.layers.Dense(2)]).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"is not built, .* Received: .*m\.keras"):
        load_model(tmp_path / "m.keras")
