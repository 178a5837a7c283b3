"""The zoo on a microcontroller: which of its models TFLM runs, and which not and why."""

import warnings

import pytest

pytest.importorskip("tflite_micro")

from zoo import ZOO, example_batch

from bmpq_research.arm.files import prepared
from bmpq_tf import ConstantColumnsWarning, export_tflite

pytestmark = pytest.mark.slow

# docs/microcontrollers.md tells the same.
REFUSED = {"transformer": "'embedding' \\(Embedding\\)"}


@pytest.mark.parametrize("name", ZOO)
def test_a_model_runs_in_tflm_or_is_refused_by_name(name, tmp_path):
    float_model = ZOO[name]()
    inputs, _ = example_batch(float_model, 2)
    batch = inputs if isinstance(inputs, list) else [inputs]
    model = prepared(float_model, batch)
    options = {"optimize_for": "micro", "calibrate_with": inputs, "tolerance": 1e9}
    path = tmp_path / "model.tflite"
    if name in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name]):
            export_tflite(model, path, **options)
        return
    with warnings.catch_warnings():
        # Of weights that were hardly trained.
        warnings.simplefilter("ignore", ConstantColumnsWarning)
        report = export_tflite(model, path, **options)
    assert report.micro.examples == 2
    print(f"{name}: {report.tflite_bytes:,} bytes, arena {report.micro.arena.bytes:,}")
