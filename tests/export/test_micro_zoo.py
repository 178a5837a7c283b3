"""The zoo on a microcontroller: which of its models TFLM runs, and which not and why."""

import warnings

import pytest

pytest.importorskip("tflite_micro")

from zoo import ZOO, example_batch

from bmpq_tf import ConstantColumnsWarning, assign_bits, export_tflite, kernel_table, quantize_model

pytestmark = pytest.mark.slow

# docs/microcontrollers.md tells the same.
REFUSED = {"transformer": "'embedding' \\(Embedding\\)"}


@pytest.mark.parametrize("name", ZOO)
def test_a_model_runs_in_tflm_or_is_refused_by_name(name, tmp_path):
    model = quantize_model(ZOO[name](), (2, 3, 4, 6, 8), activation_bits=8)
    inputs, targets = example_batch(model, 2)
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(inputs, targets, verbose=0)
    rows = kernel_table(model)
    open_rows = [row for row in rows if len(row.candidates) > 1]
    assign_bits(
        model,
        {row.path: row.candidates[n % len(row.candidates)] for n, row in enumerate(open_rows)},
    )
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
