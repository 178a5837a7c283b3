"""What a run leaves, also where its export is refused."""

import dataclasses

import keras
import numpy as np
import pytest
from conftest import small_data, small_model

from bmpq_research.datasets import ImageDataset
from bmpq_research.experiments import outcome
from bmpq_research.experiments.train_config import TrainConfig
from bmpq_research.experiments.training import Run, train
from bmpq_tf import ExportError, quantize_model
from bmpq_tf.export.tflite.interpreter import TFLiteModel


def test_a_refused_export_does_not_cost_the_training(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise ExportError("it differs")

    monkeypatch.setattr(outcome, "export_tflite", refused)
    images, labels = small_data()
    pixels = np.zeros(images.shape, "uint8")
    dataset = ImageDataset("small", (pixels, labels), (pixels, labels), 3, augment=False)
    model = quantize_model(small_model())
    run = Run(TrainConfig(), dataset, model, None, [], {}, small_model())
    with pytest.raises(ExportError):
        outcome.write_outcome(run, tmp_path / "new" / "out")
    kept = keras.models.load_model(tmp_path / "new" / "out" / "model.keras", compile=False)
    np.testing.assert_array_equal(kept(images), model(images))
    assert (tmp_path / "new" / "out" / "float.keras").exists()
    # What another run left would be taken for this one's.
    (tmp_path / "new" / "out" / "model.tflite").write_bytes(b"earlier")
    with pytest.raises(ExportError):
        outcome.write_outcome(
            Run(TrainConfig(), dataset, model, None, [], {}),
            tmp_path / "new" / "out",
            overwrite=True,
        )
    assert [path.name for path in (tmp_path / "new" / "out").iterdir()] == ["model.keras"]


def test_a_half_that_a_kill_has_left_is_replaced_by_the_same_run_alone(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(outcome, "export_tflite", killed)
    images, labels = small_data()
    pixels = np.zeros(images.shape, "uint8")
    dataset = ImageDataset("small", (pixels, labels), (pixels, labels), 3, augment=False)
    config, other = TrainConfig(), TrainConfig(seed=1)
    run = Run(config, dataset, quantize_model(small_model()), None, [], {})
    with pytest.raises(KeyboardInterrupt):
        outcome.write_outcome(run, tmp_path)
    # As a kill leaves them beside.
    (tmp_path / ".report-abc.json").write_text("{")
    for settings in ((other,), (config, "latency"), ()):
        with pytest.raises(FileExistsError, match=r"model\.keras"):
            outcome.check_folder(tmp_path, False, *settings)
    moved = dataclasses.replace(config, backup_dir="elsewhere", data_dir="elsewhere")
    assert outcome.check_folder(tmp_path, False, moved) == tmp_path
    with pytest.raises(KeyboardInterrupt):
        outcome.write_outcome(run, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"model.keras", ".unfinished.json"}


@pytest.mark.slow
def test_an_integer_file_is_calibrated_on_training_images(tmp_path):
    pytest.importorskip("sklearn")
    run = train(
        TrainConfig(channel_multiplier=0.25, activation_bits=8, epochs=4, budget="8x"), verbose=0
    )
    exported, accuracy = outcome.write_outcome(
        run, tmp_path, optimize_for="integer", io_dtype="int8"
    )
    assert exported.optimize_for == "integer"
    assert abs(accuracy["tflite"] - accuracy["keras"]) <= 4 / 360
    file = TFLiteModel((tmp_path / "model.tflite").read_bytes())
    assert file.inputs[0]["dtype"] is file.outputs[0]["dtype"] is np.int8
