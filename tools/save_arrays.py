"""Writes a data set's images, as the experiments' models take them, and labels into an .npz file,
which the installed commands read.

Examples:
  python tools/save_arrays.py --dataset=digits --split=test --out=digits_test.npz
  bmpq-evaluate runs/demo/model.tflite --data=digits_test.npz --keras=runs/demo/model.keras
"""

import numpy as np
from absl import flags

from bmpq_research.datasets import (
    DATA_DIR_HELP,
    DATASETS,
    DOWNLOAD_HELP,
    load_dataset,
    normalised_test_images,
    normalised_training_images,
)
from bmpq_research.program import run as run_program
from bmpq_tf.files import replacing

flags.DEFINE_string("dataset", "digits", f"The data set: {', '.join(DATASETS)}.")
flags.DEFINE_string("data_dir", None, DATA_DIR_HELP)
flags.DEFINE_bool("download", False, DOWNLOAD_HELP)
flags.DEFINE_enum("split", "test", ("train", "test"), "Which images.")
flags.DEFINE_integer(
    "count", None, "At most so many images, the first ones; all if not given.", lower_bound=1
)
flags.DEFINE_string("out", None, "The .npz file to write.", required=True)


def main() -> None:
    """Loads, normalises and writes."""
    given = flags.FLAGS
    dataset = load_dataset(given.dataset, given.data_dir, download=given.download)
    count = len((dataset.train if given.split == "train" else dataset.test)[1])
    batches = (
        normalised_training_images(dataset, count)
        if given.split == "train"
        else normalised_test_images(dataset)
    )
    kept = slice(given.count)
    images, labels = (
        np.concatenate([part.numpy() for part in parts])[kept]
        for parts in zip(*batches, strict=True)
    )
    with replacing(given.out) as temporary, open(temporary, "wb") as file:
        np.savez(file, images=images, labels=labels)
    print(
        f"{given.out}: {len(labels):,} images of {given.dataset} ({given.split}), "
        f"{images.shape[1:]}"
    )


if __name__ == "__main__":
    run_program(main)
