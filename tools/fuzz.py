"""Takes random models through training, saving and every kind of file, and tells what goes wrong.

A model and all that is done with it is set by its seed; --models=1 runs one seed alone.

Examples:
  python tools/fuzz.py --models=300 --minutes=240 --out=runs/fuzz.jsonl
  python tools/fuzz.py --seed=137 --models=1
"""

import pathlib

from absl import flags

from bmpq_research.fuzz.campaign import campaign, findings, in_words, outcomes
from bmpq_research.program import run as run_program
from bmpq_tf import progress

flags.DEFINE_integer("seed", 0, "The first one.", lower_bound=0)
flags.DEFINE_integer("models", 300, "How many, one a seed.", lower_bound=1)
flags.DEFINE_float("minutes", 240.0, "No other model is started after so many.", lower_bound=0.0)
flags.DEFINE_string(
    "out", None, "Append a line of JSON for each model; a seed that is in there is not run again."
)


def main() -> None:
    """Runs the seeds and counts what became of them."""
    given = flags.FLAGS
    out = pathlib.Path(given.out) if given.out else None
    results = []
    with progress.shown("Random models"):
        for told in progress.counted(
            campaign(given.seed, given.models, given.minutes, out), given.models
        ):
            results.append(told)
            if findings(told):
                print(in_words(told), flush=True)
            elif given.models == 1:
                for stage in told["stages"]:
                    print(f"{stage['name']}: {stage['outcome']} {stage['told']}".rstrip())
    print(f"{len(results)} of {given.models} models:")
    for stage, counted in outcomes(results).items():
        print(
            f"  {stage}: {', '.join(f'{count} {what}' for what, count in sorted(counted.items()))}"
        )
    if wrong := [told["seed"] for told in results if findings(told)]:
        raise RuntimeError(
            f"{len(wrong)} of {len(results)} models show what is wrong. Received: seeds {wrong}. "
            "Each is shown above with the command that gives it again."
        )


if __name__ == "__main__":
    run_program(main)
