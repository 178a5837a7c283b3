"""What sensitivities predict of whole runs.

What the final widths were estimated to cost, beside the training losses they ended at.

Training losses tell runs apart that accuracies do not: paired with float32 they vary far less over
seeds.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import spearmanr

from bmpq_research.experiments.fidelity import JUDGED, Costs
from bmpq_research.experiments.report import Result, Row, mean_and_error, rows
from bmpq_research.markdown import table

ESTIMATES = (
    "bmpq, first_order",
    "bmpq, squared",
    "error, first_order",
    "error, squared",
    "measured",
)


@dataclasses.dataclass(frozen=True)
class _Run:
    """One run: its last training loss over that of float32 with the same seed, and by estimate what
    its widths cost, as shares.
    """

    row: Row
    loss: float
    shares: dict[str, float]


def markdown(results: Sequence[Result], judgements: Sequence[Mapping[str, Any]]) -> str:
    """Builds a table of methods, then one of rank correlations over runs.

    Runs at widths that were not estimated, such as activation density's, and those after training
    are left out.

    Args:
        results: lines of a results file, of one model on one data set, `float32` among them.
        judgements: what `tools/fidelity.py --json` wrote for that model, data set and those
            candidates, one a seed. Estimates are means over them, as shares of what the narrowest
            width costs throughout.

    Raises:
        ValueError: the results are of several models or data sets, or lack `float32`; or the costs
            are not of what the results are of.
    """
    found = rows([result for result in results if result["status"] == "done"])
    settings = sorted({row.setting for row in found})
    if len(settings) != 1:
        raise ValueError(
            "Costs are of one model, so the results must be too. Received: results of "
            f"{', '.join(settings) or 'nothing'}."
        )
    floats = next((row for row in found if row.part == "float32"), None)
    if floats is None:
        raise ValueError(
            "Losses are told over float32's. Received: results without a run of float32."
        )
    config = next(iter(floats.by_seed.values()))["config"]
    for judgement in judgements:
        _check(judgement, config)
    judged, candidates = [judgement["costs"] for judgement in judgements], config["candidate_bits"]

    def runs_of(row: Row) -> list[_Run]:
        both = [
            seed
            for seed, result in row.by_seed.items()
            if seed in floats.by_seed and result["epochs"]
        ]
        shares = {seed: _shares(row.by_seed[seed]["widths"], judged, candidates) for seed in both}
        return [
            _Run(row, _loss(row.by_seed[seed]) - _loss(floats.by_seed[seed]), shares[seed])
            for seed in both
            if shares[seed]
        ]

    runs = [run for row in found if row is not floats for run in runs_of(row)]
    return f"{_methods(runs)}\n\n{_correlations(runs)}\n"


def _check(judgement: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    # Costs did not tell their granularity while channels were the default.
    judgement = {"granularity": "channel", **judgement}
    if different := [name for name in JUDGED if judgement.get(name) != config[name]]:
        told, wanted = (
            ", ".join(f"{name}={values.get(name)!r}" for name in different)
            for values in (judgement, config)
        )
        raise ValueError(
            f"The costs are not of what the results are of. Received: costs of {told}; the results "
            f"have {wanted}."
        )


def _loss(result: Result) -> float:
    return result["epochs"][-1]["loss"]


def _shares(
    widths: Mapping[str, int], judged: Sequence[Mapping[str, Costs]], candidates: Sequence[int]
) -> dict[str, float]:
    """By estimate, the share of what the narrowest width costs throughout.

    Empty where a width was not estimated.
    """
    if any(widths.get(path) not in candidates for path in judged[0]["measured"]):
        return {}

    def share(costs: Costs) -> float:
        return sum(row[candidates.index(widths[path])] for path, row in costs.items()) / sum(
            row[0] for row in costs.values()
        )

    return {name: statistics.fmean(share(costs[name]) for costs in judged) for name in ESTIMATES}


def _methods(runs: Sequence[_Run]) -> str:
    columns = ("method", "compression", "training loss over float32, paired")
    columns += tuple(f"by {name}" for name in ESTIMATES)
    lines = []
    for part in dict.fromkeys(run.row.part for run in runs):
        alike = [run for run in runs if run.row.part == part]
        compression = statistics.fmean(
            result["compression"] for result in alike[0].row.by_seed.values()
        )
        shares = [
            f"{statistics.fmean(run.shares[name] for run in alike):.3f}" for name in ESTIMATES
        ]
        mean, error = mean_and_error([run.loss for run in alike])
        over = (
            f"{mean:+.4f} ± {error:.4f} ({len(alike)})"
            if len(alike) > 1
            else f"{mean:+.4f} (one seed)"
        )
        lines.append((part.replace("/", ", "), f"{compression:.2f}x", over, *shares))
    return table(columns, lines)


def _correlations(runs: Sequence[_Run]) -> str:
    columns = ("rank correlation with that loss", *(f"by {name}" for name in ESTIMATES))
    lines = []
    budgets = dict.fromkeys(run.row.budget for run in runs)
    groups = {"all": runs} | {
        budget: [run for run in runs if run.row.budget == budget] for budget in budgets if budget
    }
    for name, group in groups.items():
        # Runs by one method end at much the same widths, so that their order is the seeds'.
        if len({run.row.part for run in group}) > 2:
            values = [
                spearmanr([run.shares[key] for run in group], [run.loss for run in group]).statistic
                for key in ESTIMATES
            ]
            lines.append((f"{name}, {len(group)} runs", *(f"{value:.2f}" for value in values)))
    return table(columns, lines)
