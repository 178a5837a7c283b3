"""Searches, as bmpq-tune does, the front of one of the experiments' models on one of their data
sets, with their augmentation.

Example:
  python tools/tune.py --dataset=cifar10 --data_dir=~/tensorflow_datasets --network=resnet20 \\
      --trials=30 --out_dir=runs/tune
"""

import numpy as np
from absl import flags

from bmpq_research.program import check_installed, run_with_arguments

check_installed("keras_tuner")

# isort: split
from bmpq_research.datasets import (
    DATA_DIR_HELP,
    DATASETS,
    EpochCounter,
    batches_of,
    load_dataset,
    normalised_test_images,
)
from bmpq_research.models import MODELS, build_model
from bmpq_tf.cli import tune
from bmpq_tf.tuning.search import Problem

flags.DEFINE_string("network", "digits_cnn", f"The model: {', '.join(MODELS)}.")
flags.DEFINE_string("dataset", "digits", f"The data set: {', '.join(DATASETS)}.")
flags.DEFINE_string("data_dir", None, DATA_DIR_HELP)
flags.DEFINE_float("channel_multiplier", 1.0, "Multiplies the channels of the model.")


def main(arguments: list[str]) -> None:
    """Searches for the model and the data set that the flags name."""
    tune.main(arguments, _problem, ("network", "dataset", "channel_multiplier"))


def _problem(given) -> Problem:
    if given.model or given.data:
        raise ValueError(
            f"This tool searches a model of the experiments. Received: --model={given.model}, "
            f"--data={given.data}. Say --network and --dataset, or use bmpq-tune."
        )
    dataset = load_dataset(given.dataset, given.data_dir)
    dataset = dataset.with_validation(round(given.validation * len(dataset.train[1])))

    def training():
        counter = EpochCounter()
        size, seed = given.batch_size, given.seed
        return batches_of(dataset, batch_size=size, seed=seed, counter=counter), [counter]

    images = np.concatenate([images.numpy() for images, _ in normalised_test_images(dataset)])
    model = build_model(
        given.network, dataset.image_shape, dataset.num_classes, given.channel_multiplier
    )
    return Problem(model, training, (images, dataset.test[1]), given.granularity)


if __name__ == "__main__":
    run_with_arguments(main)
