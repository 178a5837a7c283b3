"""Judges a .tflite file in LiteRT on a data set's test images, and beside a Keras model if one is given.

Example:
  python tools/evaluate.py runs/demo/model.tflite --dataset=digits --keras=runs/demo/model.keras
"""

import os

# Before TensorFlow is imported; its start-up messages would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# isort: split
import pathlib

import keras
from absl import flags

from bmpq_tf.console import run as run_program
from bmpq_tf.datasets import load_dataset, normalised_test_images
from bmpq_tf.experiments.outcome import file_accuracy
from bmpq_tf.export.convert import first_line
from bmpq_tf.export.parity import compare
from bmpq_tf.export.runtime import TFLiteModel

flags.DEFINE_string("dataset", "digits", "The data set whose test images to judge on.")
flags.DEFINE_string("data_dir", None, "Where tfds keeps the data sets.")
flags.DEFINE_string("keras", None, "A .keras model to compare the file's answers with.")


def main(arguments: list[str]) -> None:
    """Judges the file named on the command line."""
    if len(arguments) != 2:
        raise ValueError(f"Name one .tflite file. Received: {arguments[1:]}. See --help.")
    given = flags.FLAGS
    path = pathlib.Path(arguments[1])
    if not path.is_file():
        raise FileNotFoundError(f"No such file. Received: '{path}'. Make one with tools/train.py --out_dir or tools/export.py.")
    content = path.read_bytes()
    dataset = load_dataset(given.dataset, given.data_dir and os.path.expanduser(given.data_dir))
    _check_readable(content, path, dataset.image_shape)
    print(f"{path}: accuracy in LiteRT {file_accuracy(content, dataset):.2%} on {len(dataset.test[1]):,} images of {given.dataset}")
    if given.keras:
        parity = compare(keras.models.load_model(given.keras, compile=False), content, normalised_test_images(dataset))
        print(f"top-1 equal to {given.keras} on {parity.agreement:.2%}; largest difference {parity.max_abs_diff:.2e} of {parity.logit_scale:.1f}")


def _check_readable(content: bytes, path: pathlib.Path, image_shape: tuple[int, ...]) -> None:
    try:
        inputs = TFLiteModel(content).inputs
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"LiteRT cannot read the file. Received: '{path}', {len(content):,} bytes. It says: {first_line(error)}") from error
    # -1 is any size.
    shapes = [tuple(int(size) for size in detail["shape_signature"][1:]) for detail in inputs]
    if (
        len(shapes) != 1
        or len(shapes[0]) != len(image_shape)
        or any(size not in (-1, have) for size, have in zip(shapes[0], image_shape, strict=True))
    ):
        raise ValueError(
            f"The file does not take these images. Received: '{path}' with inputs {shapes}; the images are {tuple(image_shape)}. Give --dataset."
        )


def run() -> None:
    """The console entry point."""
    run_program(main)


if __name__ == "__main__":
    run()
