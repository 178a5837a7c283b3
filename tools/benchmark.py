"""Measures training, allocation, export and inference beside float Keras and beside other tools,
and prints Markdown tables.

What is measured is also written to benchmark.md and benchmark.json in --out_dir, suite by suite
(training network by network), so that a run that is stopped leaves what it has.

Example:
  python tools/benchmark.py --suite=train --network=resnet20
  python tools/benchmark.py --quick
"""

import pathlib
from collections.abc import Callable, Iterator

from absl import flags

from bmpq_research.benchmarks import allocate, at_scale, export, infer, scaling, stages, train
from bmpq_research.benchmarks.peers.networks import NETWORKS
from bmpq_research.benchmarks.report import Result, as_json, machine, markdown, measured
from bmpq_research.program import run as run_program

_WHOLE: dict[str, Callable[[], list[Result]]] = {
    "allocate": allocate.allocate,
    "export": export.export,
    "infer": infer.infer,
    "scaling": scaling.scaling,
    "stages": lambda: [*stages.stages(), *stages.repeated()],
    "at_scale": at_scale.at_scale,
}
_SUITES = ("train", *_WHOLE)
SMALLEST_RATIO = 0.8

flags.DEFINE_multi_enum("suite", list(_SUITES), _SUITES, "What to measure.")
flags.DEFINE_multi_enum("network", list(NETWORKS), list(NETWORKS), "Networks of the train suite.")
flags.DEFINE_integer("rounds", 7, "Timed turns of each contestant in training.", lower_bound=1)
flags.DEFINE_float(
    "seconds",
    60.0,
    "Seconds after which a comparison in training starts no further round.",
    lower_bound=0.0,
)
flags.DEFINE_string(
    "peers_dir",
    "runs/peers",
    "Where the peers' virtual environments are made; empty leaves the peers out.",
)
flags.DEFINE_string(
    "out_dir",
    "runs/benchmark",
    "Where tables are kept as they come, those of a part in its own folder; --quick writes none.",
)
flags.DEFINE_bool(
    "quick",
    False,
    "Only ratios of training and allocation, in under 3 minutes; fails if one is under "
    f"{SMALLEST_RATIO}.",
)
flags.DEFINE_bool("json", False, "Print JSON instead of Markdown.")


def main() -> None:
    """Runs the suites and prints their tables."""
    given = flags.FLAGS
    about = machine()
    results = (
        [*allocate.quick(), *train.quick()]
        if given.quick
        else measured(_parts(given), about, _folder(given))
    )
    print(as_json(results, about) if given.json else markdown(results, about))
    slow = {
        name: ratio
        for result in results
        for name, ratio in result.ratios.items()
        if ratio < SMALLEST_RATIO
    }
    if given.quick and slow:
        raise RuntimeError(
            f"Slower than {SMALLEST_RATIO} of the base: "
            f"{', '.join(f'{name} {ratio:.2f}' for name, ratio in slow.items())}."
        )


def _folder(given: flags.FlagValues) -> pathlib.Path:
    """So that a look at one suite does not replace what a whole run has measured."""
    part = [
        *(given.suite if set(given.suite) != set(_SUITES) else ()),
        *(given.network if set(given.network) != set(NETWORKS) else ()),
    ]
    return pathlib.Path(given.out_dir, "-".join(part))


def _parts(given: flags.FlagValues) -> Iterator[tuple[str, Callable[[], list[Result]]]]:
    """The suites in order, training network by network."""
    for suite in given.suite:
        if suite in _WHOLE:
            yield suite, _WHOLE[suite]
            continue
        for network in given.network:
            yield (
                f"train, {network}",
                lambda network=network: train.train(
                    (network,), given.rounds, given.seconds, given.peers_dir or None
                ),
            )


if __name__ == "__main__":
    run_program(main)
