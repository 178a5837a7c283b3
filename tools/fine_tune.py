"""Brings a trained float model under budgets in a few epochs, in each of three ways, beside int8
after training; a line of JSON a run. The same command goes on where it was.

Example:
  python tools/train.py --with_float --epochs=30 --out_dir=runs/trained
  python tools/fine_tune.py --float_model=runs/trained/float.keras --budgets=8x,12x \\
      --out=runs/fine_tuning.jsonl
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib

from absl import flags

from bmpq_research.datasets import DATA_DIR_HELP, DATASETS, load_dataset
from bmpq_research.experiments.fine_tuning import WAYS, FineTuning, after_training, load_float, run
from bmpq_research.lines import append_line, whole_lines
from bmpq_research.program import run as run_program
from bmpq_tf import progress

flags.DEFINE_string(
    "float_model", None, "The trained model: .keras, or an .h5 of Keras 2.", required=True
)
flags.DEFINE_string("dataset", "digits", f"The data set: {', '.join(DATASETS)}.")
flags.DEFINE_string("data_dir", None, DATA_DIR_HELP)
flags.DEFINE_list("budgets", ["8x", "12x"], "Budgets, each in every way.")
flags.DEFINE_multi_enum("way", list(WAYS), WAYS, "What is trained.")
flags.DEFINE_integer("epochs", 2, "Epochs of each run.", lower_bound=2)
flags.DEFINE_float("learning_rate", 0.01, "Peak of the learning rate.")
flags.DEFINE_integer("activation_bits", 8, "Width of the activations; 0 leaves them float.")
flags.DEFINE_list("seeds", ["0"], "Of order and augmentation.")
flags.DEFINE_string("out", None, "File of JSON lines, one a run.", required=True)


def main() -> None:
    """Judges the float model and int8 after training, then fine-tunes in every way."""
    given = flags.FLAGS
    dataset = load_dataset(given.dataset, given.data_dir)
    model = load_float(given.float_model)
    source = [_digest(given.float_model), dataset.name, dataset.fingerprint()]
    lines = [json.loads(line) for line in whole_lines(given.out)]
    if any(line.get("source", source) != source for line in lines):
        raise ValueError(
            f"The results are of another model or data set. Received: --out={given.out}, "
            f"--float_model={given.float_model}, --dataset={given.dataset}. Give another --out."
        )
    done = {line["run"] for line in lines}
    if "float" not in done:
        _keep(given.out, {"run": "float", "source": source, **after_training(model, dataset)})
    runs = {
        json.dumps(dataclasses.asdict(config)): config
        for config in (
            FineTuning(
                budget,
                way,
                given.epochs,
                learning_rate=given.learning_rate,
                activation_bits=given.activation_bits,
                seed=int(seed),
            )
            for seed, budget, way in itertools.product(given.seeds, given.budgets, given.way)
        )
    }
    left = [name for name in runs if name not in done]
    with progress.shown("Fine-tuning"):
        for name in progress.counted(left):
            _keep(given.out, {"run": name, "source": source, **run(model, dataset, runs[name])})


def _digest(path: str) -> str:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:12]


def _keep(path: str, told: dict) -> None:
    append_line(path, json.dumps(told))
    print({key: value for key, value in told.items() if key != "bits"}, flush=True)


if __name__ == "__main__":
    run_program(main)
