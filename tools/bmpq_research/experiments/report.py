"""Results of a grid as a Markdown table.

Means, spreads, differences paired by seed, sizes, times.
"""

import dataclasses
import datetime
import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

from bmpq_research.experiments.changes import kernels_changed
from bmpq_research.markdown import table

Result = dict[str, Any]
JUDGES = ("validation", "test")
# Times of two runs compare only where one machine made both, in much the same state.
_SAME_SESSION = datetime.timedelta(hours=6)


@dataclasses.dataclass(frozen=True)
class Row:
    """The results of one method under one budget over its seeds.

    Attributes:
        setting: model, channel multiplier and data set.
        part: method, budget and changed settings, as in a cell's name.
        method, budget: the first two of them; the budget is empty for methods that take none.
        by_seed: the results that are done, by seed.
        others: for each status that is not `"done"`, a sentence.
    """

    setting: str
    part: str
    method: str
    budget: str
    by_seed: dict[int, Result]
    others: tuple[str, ...]

    @property
    def is_changed(self) -> bool:
        """Whether settings of its own set it apart from the rest of the grid."""
        return self.part != "/".join(filter(None, (self.method, self.budget)))


def rows(results: Sequence[Result]) -> list[Row]:
    """Groups results over seeds, in the order of their first lines."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        model, dataset, *part, _ = result["cell"].split("/")
        groups.setdefault((f"{model}/{dataset}", "/".join(part)), []).append(result)
    made = []
    for (setting, part), group in groups.items():
        done = {result["config"]["seed"]: result for result in group if result["status"] == "done"}
        method, budget = (group[0]["config"][name] for name in ("method", "budget"))
        others = tuple(_other(result) for result in group if result["status"] != "done")
        made.append(Row(setting, part, method, budget, dict(sorted(done.items())), others))
    return made


def _other(result: Result) -> str:
    seed = result["config"]["seed"]
    return (
        f"seed {seed}: diverged in epoch {result['epoch']}"
        if result["status"] == "diverged"
        else f"seed {seed}: {result['status']}"
    )


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the standard deviation of a sample; the latter is NaN for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and its standard error; the latter is NaN for one value."""
    mean, spread = mean_and_spread(values)
    return mean, spread / math.sqrt(len(values))


def paired(ours: dict[int, float], theirs: dict[int, float]) -> tuple[float, float, int]:
    """Returns the mean difference over the seeds that both have, its standard error (NaN for one),
    and how many they are.
    """
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    if not differences:
        return math.nan, math.nan, 0
    return *mean_and_error(differences), len(differences)


def accuracies(row: Row, judge: str) -> dict[int, float]:
    """Returns a row's accuracies in percent, by seed.

    Raises:
        ValueError: the results have no such split.
    """
    for result in row.by_seed.values():
        if judge not in result["accuracy"]:
            raise ValueError(
                f"There are no accuracies of this split. Received: judge={judge!r}; "
                f"{result['cell']} has {', '.join(result['accuracy'])}."
            )
    return {seed: 100 * result["accuracy"][judge] for seed, result in row.by_seed.items()}


def opponent(row: Row, all_rows: Sequence[Row]) -> Row | None:
    """Returns the BMPQ row to hold a row against.

    At its own budget, or, for a method without one, at the size that it reached.
    """
    if row.method == "bmpq" and not row.is_changed:
        return None
    budget = row.budget or f"size of {row.part}"
    return next(
        (
            other
            for other in all_rows
            if other.setting == row.setting and other.part == f"bmpq/{budget}"
        ),
        None,
    )


def markdown(results: Sequence[Result], judge: str = "validation") -> str:
    """Builds one table for each model and data set.

    Args:
        results: lines of a results file.
        judge: the split that accuracies are told for: `"validation"` while anything is chosen,
            `"test"` once, at the end.
    """
    found = rows(results)
    parts = []
    for setting in dict.fromkeys(row.setting for row in found):
        of_setting = [row for row in found if row.setting == setting]
        one = next((result for result in results if result["cell"].startswith(f"{setting}/")), None)
        parts.append(
            f"### {setting.replace('/', ' on ')}, {one['config']['epochs']} epochs, judged on the "
            f"{judge} split\n\n{_table(of_setting, judge)}"
        )
    return "\n\n".join(parts) + "\n"


def _table(of_setting: list[Row], judge: str) -> str:
    columns = (
        "method",
        "seeds",
        "accuracy",
        "over float32, paired",
        "bmpq ahead by, paired",
        "in LiteRT",
        "compression",
        "file, bytes",
    )
    columns += (
        "training time, x float",
        "kernels changed after the first allocation",
        "kernels at bmpq's width",
    )
    floats = next((row for row in of_setting if row.part == "float32"), None)
    return table(columns, (_cells(row, of_setting, floats, judge) for row in of_setting))


def _cells(row: Row, of_setting: list[Row], floats: Row | None, judge: str) -> list[str]:
    name = row.part.replace("/", ", ").replace("[", " (").replace("]", ")")
    failed = f" ({'; '.join(row.others)})" if row.others else ""
    if not row.by_seed:
        return [name, failed.strip(" ()"), *["-"] * 9]
    done = list(row.by_seed.values())
    compared = opponent(row, of_setting)
    own = accuracies(row, judge)
    over_float = (
        difference(*paired(own, accuracies(floats, judge))) if floats and floats is not row else ""
    )
    ahead = difference(*paired(accuracies(compared, judge), own)) if compared else ""
    files = [result for result in done if "file_bytes" in result]
    in_file, size = "", ""
    if files:
        in_file = f"{statistics.fmean(100 * one['tflite_accuracy'][judge] for one in files):.2f}"
        size = f"{statistics.fmean(one['file_bytes'] for one in files):,.0f}"
    compressions = {f"{result['compression']:.2f}x" for result in done}
    return [
        name,
        f"{len(done)}{failed}",
        spread(own.values()),
        over_float,
        ahead,
        in_file,
        " to ".join(
            sorted({min(compressions, key=_number), max(compressions, key=_number)}, key=_number)
        ),
        size,
        _times(row, floats),
        _changes(row),
        _alike(row, compared) if compared else "",
    ]


def _number(word: str) -> float:
    return float(word.rstrip("x"))


def spread(values) -> str:
    """Returns a mean and its standard deviation as a table tells them."""
    mean, spread = mean_and_spread(list(values))
    return f"{mean:.2f}" if math.isnan(spread) else f"{mean:.2f} ± {spread:.2f}"


def difference(mean: float, error: float, seeds: int) -> str:
    """Returns a paired difference and its standard error as a table tells them."""
    if not seeds:
        return ""
    return (
        f"{mean:+.2f} (one seed)" if math.isnan(error) else f"{mean:+.2f} ± {error:.2f} ({seeds})"
    )


def _times(row: Row, floats: Row | None) -> str:
    """Wall time over that of the same seed's float run of the same session, mean over seeds, and
    CPU time likewise.
    """
    trained = {
        seed: result
        for seed, result in row.by_seed.items()
        if floats and seed in floats.by_seed and result["train_seconds"]
    }
    pairs = [
        (result, floats.by_seed[seed])
        for seed, result in trained.items()
        if _in_one_session(result, floats.by_seed[seed])
    ]
    if not pairs:
        return ""
    wall, cpu = (
        statistics.fmean(ours[key] / theirs[key] for ours, theirs in pairs)
        for key in ("train_seconds", "train_cpu_seconds")
    )
    return f"{wall:.2f} (CPU {cpu:.2f})"


def _in_one_session(one: Result, other: Result) -> bool:
    ended = (datetime.datetime.fromisoformat(result["date"]) for result in (one, other))
    return abs(next(ended) - next(ended)) < _SAME_SESSION


def _changes(row: Row) -> str:
    """How many kernels each allocation after the first changed, mean over seeds; long runs of one
    number are counted.

    Runs by activation density differ in how many they have.
    """
    changed = [kernels_changed(result["allocations"]) for result in row.by_seed.values()]
    by_allocation = [
        [kernels for kernels in one if kernels is not None]
        for one in itertools.zip_longest(*changed)
    ]
    means = [
        f"{statistics.fmean(kernels):g}"
        if len(kernels) == 1
        else f"{statistics.fmean(kernels):.1f}"
        for kernels in by_allocation
    ]
    runs = [(mean, len(list(same))) for mean, same in itertools.groupby(means)]
    return ", ".join(
        f"{length} x {mean}" if length > 3 else ", ".join([mean] * length) for mean, length in runs
    )


def _alike(row: Row, other: Row) -> str:
    """How many kernels end at the widths that the opponent's run of the same seed gave them.

    Where all do, accuracies can only differ by chance.
    """
    pairs = [
        (result["widths"], other.by_seed[seed]["widths"])
        for seed, result in row.by_seed.items()
        if seed in other.by_seed
    ]
    # A method that leaves a file names its tensors, not Keras's kernels.
    if not pairs or any(ours.keys() != theirs.keys() for ours, theirs in pairs):
        return ""
    alike = statistics.fmean(
        sum(width == theirs[kernel] for kernel, width in ours.items()) for ours, theirs in pairs
    )
    return f"{alike:.1f} of {len(pairs[0][0])}"
