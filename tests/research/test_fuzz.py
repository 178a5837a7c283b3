"""Random models: what sets them, what counts as a refusal that helps, and twenty of them."""

import json

import keras
import pytest
from conftest import small_model

from bmpq_research.fuzz import campaign
from bmpq_research.fuzz.architectures import example_inputs, random_model
from bmpq_research.fuzz.options import Options, budget_of, random_options
from bmpq_research.fuzz.refusals import is_helpful
from bmpq_research.fuzz.worker import Worker
from bmpq_tf import BMPQCallback, Budget, ExportError, InfeasibleBudgetError, quantize_model
from bmpq_tf.model.kernels import model_kernels


@pytest.mark.slow
@pytest.mark.apart
def test_twenty_random_models_show_nothing_wrong():
    results = list(campaign.campaign(0, 20, minutes=60))
    assert len(results) == 20
    wrong = [campaign.in_words(told) for told in results if campaign.findings(told)]
    assert not wrong, "\n".join(wrong)
    counted = campaign.outcomes(results)
    # The test would else be of what is refused or left out.
    assert counted["size"]["ok"] >= 12
    assert counted["build"]["ok"] == 20


def test_a_seed_is_one_model_with_one_way_of_training():
    for seed in (3, 11):
        models = [random_model(seed) for _ in range(2)]
        assert models[0].get_config() == models[1].get_config()
        assert random_options(seed, models[0]) == random_options(seed, models[1])
        inputs = example_inputs(models[0], 2, seed)
        one, other = (
            keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0])) for model in models
        )
        assert all((a == b).numpy().all() for a, b in zip(one, other, strict=True))
    assert models[0].get_config() != random_model(4).get_config()


@pytest.mark.parametrize("form", ["x", "bits", "kB"])
def test_a_budget_lies_between_the_narrowest_and_the_widest_widths(form):
    model = quantize_model(small_model(), (2, 3, 8))
    kernels = [state.kernel for state in model_kernels(model)]
    least = sum(kernel.weights * min(kernel.candidates) for kernel in kernels)
    most = sum(kernel.weights * max(kernel.candidates) for kernel in kernels)
    for share, low, high in ((0.0, least, 1.01 * least + 8), (1.0, most, 1.01 * most + 8)):
        limit = Budget.parse(budget_of(Options({}, {}, share, form), model)).bits(kernels)
        assert low <= limit <= high
    with pytest.raises(InfeasibleBudgetError) as refused:
        BMPQCallback(budget_of(Options({}, {}, -0.3, form), model)).check(model, 2)
    assert is_helpful(refused.value, model)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (ExportError("ERF of layer 'head' is not known. Replace it. Nothing was written."), True),
        (ValueError("Received: budget='1x'. Give more."), True),
        (ExportError("The file differs. Nothing was written."), False),
        (ExportError("Layer 'head' cannot be converted."), False),
        (ValueError("layer 'head' at loc(fused): failed. Replace it."), False),
        (IndexError("Layer 'head': list index out of range. Give more."), False),
        (RuntimeError("Layer 'head' failed to prepare. Replace it."), False),
    ],
)
def test_a_refusal_names_a_layer_or_an_argument_and_a_way_out(error, helps):
    assert is_helpful(error, small_model()) is helps


@pytest.mark.quick
def test_a_campaign_goes_on_where_it_was_and_tells_how_to_run_one_seed(tmp_path, monkeypatch):
    asked = []

    def ask(self, line):
        asked.append(seed := int(line))
        outcome = "finding" if seed == 7 else "ok"
        stage = {"name": "size", "outcome": outcome, "told": "it differs", "seconds": 1.0}
        told = {"seed": seed, "layers": ["Dense"], "options": {}, "budget": "", "stages": [stage]}
        return json.dumps(told), ""

    monkeypatch.setattr(Worker, "ask", ask)
    out = tmp_path / "fuzz.jsonl"
    list(campaign.campaign(5, 2, 1.0, out))
    results = list(campaign.campaign(5, 4, 1.0, out))
    assert asked == [5, 6, 7, 8]
    assert [told["seed"] for told in results] == asked
    assert [json.loads(line) for line in out.read_text().splitlines()] == results
    assert campaign.outcomes(results)["size"] == {"ok": 3, "finding": 1}
    (wrong,) = [told for told in results if campaign.findings(told)]
    assert "python tools/fuzz.py --seed=7 --models=1" in campaign.in_words(wrong)
    assert list(campaign.campaign(90, 4, 0.0)) == []


@pytest.mark.quick
@pytest.mark.parametrize(
    ("line", "told"), [("0", "exit code -9"), ("1", "no end within 900 seconds")]
)
def test_a_process_that_ends_is_a_finding(line, told, monkeypatch):
    ends = {"0": "-9", "1": "late"}
    monkeypatch.setattr(Worker, "ask", lambda self, line: ("", ends[line]))
    (result,) = campaign.campaign(int(line), 1, 1.0)
    assert [stage["told"] for stage in campaign.findings(result)] == [told]


@pytest.mark.apart
def test_a_worker_that_ends_or_hangs_has_another_in_its_place(tmp_path):
    script = tmp_path / "echo.py"
    script.write_text(
        "import os, sys, time\n"
        "for line in sys.stdin:\n"
        "    line == 'die\\n' and os._exit(3)\n"
        "    line == 'hang\\n' and time.sleep(60)\n"
        "    print(line, end='', flush=True)\n"
    )
    worker = Worker([script], 2.0)
    answers = [worker.ask(line) for line in ("one", "die", "two", "hang", "three")]
    worker.close()
    assert answers == [("one\n", ""), ("", "3"), ("two\n", ""), ("", "late"), ("three\n", "")]
