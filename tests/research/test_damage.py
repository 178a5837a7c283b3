"""Five hundred damaged files, as `tools/damaged_files.py` makes them: one clear line for each."""

import collections

import numpy as np
import pytest

from bmpq_research.fuzz.damage import AS_BYTES, AS_KERAS, AS_TFLITE
from bmpq_research.fuzz.damaged import Answer, Case, _outcome, cases, run


@pytest.mark.slow
@pytest.mark.apart
def test_no_damaged_file_is_answered_by_a_crash_a_traceback_or_code(tmp_path):
    pytest.importorskip("keras_tuner")
    answers = list(run(tmp_path, 500))
    assert len(answers) == 500
    wrong = [answer for answer in answers if answer.is_finding]
    assert not wrong, "\n".join(
        f"{answer.case}: {answer.outcome}\n{answer.said}" for answer in wrong
    )
    # Most damage matters: the test would else be of files that are whole.
    assert collections.Counter(answer.outcome for answer in answers)["refused"] > 300


@pytest.mark.quick
def test_cases_are_set_by_the_seed_and_reach_every_command(tmp_path):
    (tmp_path / "good_size.tflite").write_bytes(b"")
    found = cases(tmp_path, 300, seed=3)
    assert found == cases(tmp_path, 300, seed=3)
    assert found != cases(tmp_path, 300, seed=4)
    assert {case.command for case in found} == {"inspect", "evaluate", "export", "tune"}
    assert {case.damage for case in found} == {*AS_BYTES, *AS_KERAS, *AS_TFLITE}


@pytest.mark.quick
@pytest.mark.parametrize("name", AS_BYTES)
def test_a_damage_changes_the_file(name):
    content = np.arange(1, 9000, dtype=np.int64).tobytes()
    assert AS_BYTES[name](content, np.random.default_rng(0)) != content


@pytest.mark.quick
@pytest.mark.parametrize(
    ("code", "said", "outcome"),
    [
        (None, "Traceback (most recent call last): ...", "traceback"),
        (0, "accuracy", "works"),
        (1, "error: No. Received: 'x'. Do y.\n(BMPQ_TRACEBACK=1 shows where)\n", "refused"),
        (1, "error: No. Received: 'x', 5 bytes.\n(BMPQ_TRACEBACK=1 shows where)\n", "unclear"),
        (1, "error: 'images'\n(BMPQ_TRACEBACK=1 shows where)\n", "unclear"),
        (1, "error: a\nb Received: c. Do y.\n(BMPQ_TRACEBACK=1 shows where)\n", "unclear"),
    ],
)
def test_an_answer_is_judged(code, said, outcome):
    case = Case(0, "inspect", "x", "empty", ())
    assert _outcome({"code": code, "said": said}) == outcome
    assert Answer(case, outcome, said).is_finding is (outcome not in ("refused", "works"))
