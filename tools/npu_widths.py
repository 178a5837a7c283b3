"""What widths are worth on an Ethos-U: trains a model at each width and under budgets, and prints
what Vela makes of it.

Examples:
  python tools/npu_widths.py --runs="2 bits,4 bits,8 bits,12x"
  python tools/npu_widths.py --model=mobilenet_v1_025 --reference=vww_96.h5 --runs="4 bits,8 bits"
  python tools/npu_widths.py --keras=runs/demo/model.keras
  python tools/npu_widths.py --report=docs/results/npu_widths.jsonl
"""

# First: it keeps off the screen what TensorFlow writes when it is imported.
import bmpq_tf  # noqa: F401

# isort: split
import dataclasses
import json
from collections.abc import Iterator

import keras
from absl import flags

from bmpq_research.datasets import DATA_DIR_HELP, DATASETS, load_dataset
from bmpq_research.experiments.train_config import TrainConfig
from bmpq_research.lines import append_line, whole_lines
from bmpq_research.models import MODELS
from bmpq_research.npu.widths import (
    Seen,
    centred_error,
    markdown,
    reference,
    seen,
    shares,
    trained,
)
from bmpq_research.program import run as run_program
from bmpq_tf.cli.program import bit_widths

flags.DEFINE_enum("model", "digits_cnn", sorted(MODELS), "The network.")
flags.DEFINE_string("dataset", "digits", f"Its images: {', '.join(DATASETS)}.")
flags.DEFINE_string("data_dir", None, DATA_DIR_HELP)
flags.DEFINE_float("channel_multiplier", 1.0, "Multiplies the channels of the model.")
flags.DEFINE_list("runs", ["2 bits", "4 bits", "8 bits", "12x"], "Widths for all, or budgets.")
flags.DEFINE_list("candidate_bits", ["2", "4", "8"], "Widths to choose from under a budget.")
flags.DEFINE_integer("epochs", 20, "Epochs of each run.", lower_bound=1)
flags.DEFINE_integer("train_images", None, "Take only so many.", lower_bound=1)
flags.DEFINE_float("learning_rate", 0.1, "Of SGD with momentum.")
flags.DEFINE_string("reference", None, "Round the float weights of this .h5 file; do not train.")
flags.DEFINE_list("keras", [], "Ask for these trained models instead.")
flags.DEFINE_string("accelerator", "ethos-u55-128", "The Ethos-U.")
flags.DEFINE_list("report", [], "Only print what these files of --out hold.")
flags.DEFINE_string("out", None, "Append a line of JSON a run to this file.")


def rows() -> Iterator[Seen]:
    """Yields what is asked for, one model after the other."""
    given = flags.FLAGS
    for path in given.report:
        yield from map(Seen.of, map(json.loads, whole_lines(path)))
    if given.report:
        return
    for path in given.keras:
        model = keras.models.load_model(path, compile=False)
        yield seen(model, model.name, path, given.accelerator)
    if given.keras:
        return
    if given.reference:
        for run in given.runs:
            model = reference(given.model, given.reference, run)
            yield seen(model, given.model, run, given.accelerator)
        return
    dataset = load_dataset(given.dataset, given.data_dir)
    if given.train_images:
        images, labels = dataset.train
        few = images[: given.train_images], labels[: given.train_images]
        dataset = dataclasses.replace(dataset, train=few)
    config = TrainConfig(
        model=given.model,
        dataset=given.dataset,
        channel_multiplier=given.channel_multiplier,
        candidate_bits=bit_widths(given.candidate_bits),
        epochs=given.epochs,
        learning_rate=given.learning_rate,
        activation_bits=8,
    )
    for run in given.runs:
        model, accuracy = trained(config, dataset, run)
        yield seen(model, given.model, run, given.accelerator, accuracy)


def main() -> None:
    """Trains, asks and prints."""
    given, found = flags.FLAGS, []
    for row in rows():
        found.append(row)
        print(f"{row.model}, {row.run}: {row.encoded:,} bytes, {100 * row.excess:+.1f} %")
        if given.out and not given.report:
            append_line(given.out, json.dumps(row.to_dict()))
    print(markdown(found))
    if given.report:
        share = shares(found)
        errors = [100 * centred_error(row, share) for row in found]
        told = ", ".join(f"{bits} bits {part:.3f}" for bits, part in share.items())
        print(f"Of what was predicted came out: {told}.")
        print(f"By these shares: {min(errors):+.1f} to {max(errors):+.1f} % of the file.")


if __name__ == "__main__":
    run_program(main)
