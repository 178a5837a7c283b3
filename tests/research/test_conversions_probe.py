"""What the runtimes do with conversions of integers, and with activations of 16 bits, equals the
copy in the docs.
"""

import pathlib

import pytest

from bmpq_research.runtime_probe import conversions, probe, sixteen
from bmpq_research.runtime_probe.table import documented
from bmpq_tf.export.integer import integer_inputs
from bmpq_tf.export.micro.operators import OPERATORS, WITHOUT_INT16, is_installed

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "runtime_matrix.md"


@pytest.mark.parametrize("kind", [conversions, sixteen])
def test_the_docs_hold_what_the_runtimes_do(kind):
    found, told = kind.rows(kind.probe_all()), documented(PAGE.read_text(), kind.COLUMNS)
    columns = None if is_installed() else len(kind.COLUMNS) - 1
    assert [row[:columns] for row in told] == found
    if kind is sixteen and is_installed():
        in_phones = {
            operator: tflm for operator, _, _, right, *_, tflm in found if right == "right"
        }
        refused = {operator for operator, tflm in in_phones.items() if tflm == "-"}
        weightless = {operator.name for operator in sixteen.WEIGHTLESS}
        assert refused & OPERATORS & weightless == WITHOUT_INT16


def test_every_input_of_integers_has_a_conversion_that_is_right_everywhere():
    right = {
        (one.operator, one.given)
        for one in conversions.probe_all(probe.RUNTIMES)
        if one.outcome == "right" and one.made in ("int8", "int32")
    }
    names = {code: name for name, code in conversions._TYPES.items()}
    for operator, types in (
        ("QUANTIZE", integer_inputs._QUANTIZED),
        ("CAST", integer_inputs._CAST),
    ):
        assert {(operator, names[code]) for code in types if code in names} <= right


def test_a_conversion_that_is_a_step_off_is_seen(monkeypatch):
    honest = probe.run_with
    monkeypatch.setattr(probe, "run_with", lambda *given: honest(*given) + 2)
    assert conversions._outcome("QUANTIZE", "uint8", "int8", "LiteRT") == "wrong"
