"""Judges a classifier's .tflite file in LiteRT on a data set's test images or on images of yours, and beside a Keras model if one is given.

Examples:
  python tools/evaluate.py runs/demo/model.tflite --dataset=digits --keras=runs/demo/model.keras
  python tools/evaluate.py mine.tflite --data=test.npz
"""

import os

# Before TensorFlow is imported; its start-up messages would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# isort: split
import pathlib

import keras
import tensorflow as tf
from absl import flags

from bmpq_tf.console import run as run_program
from bmpq_tf.datasets import DATA_DIR_HELP, load_arrays, load_dataset, normalised_test_images
from bmpq_tf.experiments.outcome import file_accuracy
from bmpq_tf.export.convert import first_line
from bmpq_tf.export.parity import compare
from bmpq_tf.export.runtime import TFLiteModel, in_rank

flags.DEFINE_string("dataset", "digits", "The data set whose test images to judge on.")
flags.DEFINE_string("data", None, "Judge on these instead: an .npz file with images (as the model takes them) and integer labels.")
flags.DEFINE_string("data_dir", None, DATA_DIR_HELP)
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
    file = _read(content, path)
    if given.data:
        images, labels = load_arrays(given.data)
        # A file of several inputs is refused below.
        images = in_rank(images, file.inputs[0]["shape_signature"])
        batches, shape = tf.data.Dataset.from_tensor_slices((images, labels)).batch(250), images.shape[1:]
    else:
        dataset = load_dataset(given.dataset, given.data_dir)
        batches, shape, labels = normalised_test_images(dataset), dataset.image_shape, dataset.test[1]
    _check_inputs_and_outputs(file, path, shape)
    print(f"{path}: accuracy in LiteRT {file_accuracy(content, batches):.2%} on {len(labels):,} images of {given.data or given.dataset}")
    if given.keras:
        parity = compare(keras.models.load_model(given.keras, compile=False), content, batches)
        print(f"top-1 equal to {given.keras} on {parity.agreement:.2%}; largest difference {parity.max_abs_diff:.2e} of {parity.logit_scale:.1f}")


def _read(content: bytes, path: pathlib.Path) -> TFLiteModel:
    try:
        return TFLiteModel(content)
    except RuntimeError as error:
        raise ValueError(f"LiteRT cannot read the file. Received: '{path}', {len(content):,} bytes. It says: {first_line(error)}") from error


def _check_inputs_and_outputs(file: TFLiteModel, path: pathlib.Path, image_shape: tuple[int, ...]) -> None:
    # -1 is any size.
    shapes = [tuple(int(size) for size in detail["shape_signature"][1:]) for detail in file.inputs]
    if (
        len(shapes) != 1
        or len(shapes[0]) != len(image_shape)
        or any(size not in (-1, have) for size, have in zip(shapes[0], image_shape, strict=True))
    ):
        raise ValueError(
            f"The file does not take these images. Received: '{path}' with inputs {shapes}; the images are {tuple(image_shape)}. "
            "Give another --dataset, or --data."
        )
    answers = [tuple(int(size) for size in detail["shape_signature"]) for detail in file.outputs]
    if len(answers) != 1 or len(answers[0]) != 2 or answers[0][1] == 1:
        raise ValueError(
            f"Only classifiers are judged: files with one output, of a value for each class. Received: '{path}' with outputs {answers}. "
            "bmpq_tf.export.runtime.predict runs any file."
        )


def run() -> None:
    """The console entry point."""
    run_program(main)


if __name__ == "__main__":
    run()
