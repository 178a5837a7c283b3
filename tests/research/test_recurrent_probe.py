"""What recurrent layers do in the runtimes equals the copy in the docs."""

import pathlib

import numpy as np
import pytest

from bmpq_research.runtime_probe import recurrent
from bmpq_research.runtime_probe.fused_lstm import fused
from bmpq_research.runtime_probe.table import documented
from bmpq_tf.export.tflite.interpreter import TFLiteModel

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "runtime_matrix.md"


@pytest.mark.slow
def test_the_docs_hold_what_recurrent_layers_do():
    pytest.importorskip("tflite_micro")
    rows = [row[:-1] for row in recurrent.rows(recurrent.probe_recurrent())]
    assert [row[:-1] for row in documented(DOCS.read_text(), recurrent.COLUMNS)] == rows


@pytest.mark.parametrize("mode", ["weight_only", "dynamic", "static"])
def test_the_fused_lstm_keeps_its_states_which_is_why_no_file_has_it(mode):
    """If this fails a release resets them: look at docs/runtime_matrix.md again."""
    content, inputs, expected = fused(mode, 8, 6, 4, 5)
    model = TFLiteModel(content)
    (first,), (second,) = model([inputs]), model([inputs])
    np.testing.assert_allclose(first, expected, atol=0.03)
    assert np.abs(second[:, 0] - expected[:, 0]).max() > 0.03


def test_a_loop_that_answers_wrongly_would_be_seen(monkeypatch):
    which = {"layers": ("SimpleRNN",)}
    monkeypatch.setattr(recurrent, "WIDTHS", (8,))
    monkeypatch.setattr(recurrent, "MODES", ("weight_only",))
    monkeypatch.setattr(recurrent, "FORMS", recurrent.FORMS[:2])
    assert {seen.outcome for seen in recurrent.probe_recurrent(**which)} == {"right"}
    honest = recurrent._converted
    monkeypatch.setattr(
        recurrent,
        "_converted",
        lambda *given: (*honest(*given)[:2], 1.001 * honest(*given)[2]),
    )
    assert {seen.outcome for seen in recurrent.probe_recurrent(**which)} == {"wrong"}
