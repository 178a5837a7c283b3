"""Models that users bring."""

import keras
import pytest

from bmpq_tf.cli.models import load_model

pytestmark = pytest.mark.quick


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet")
def test_a_model_that_is_not_built_is_refused_in_words(tmp_path):
    keras.Sequential([keras.layers.Dense(2)]).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"is not built, .* Received: .*m\.keras"):
        load_model(tmp_path / "m.keras")
