"""Measures the accuracy of a classifier's .tflite file on your images: in LiteRT, or in TFLM if it
is a file for microcontrollers. With --keras also compares its answers with a Keras model's.

Examples:
  bmpq-evaluate mine.tflite --data=test.npz
  bmpq-evaluate mine.tflite --data=test.npz --keras=mine.keras
  bmpq-evaluate mine.tflite --data=test.npz --on=arm64
"""

import contextlib
import pathlib
from collections.abc import Iterator

import tensorflow as tf
from absl import flags

from bmpq_tf import progress
from bmpq_tf.cli.arrays import load_arrays
from bmpq_tf.cli.models import check_labels, load_model
from bmpq_tf.cli.program import run as run_program
from bmpq_tf.export.errors import first_line
from bmpq_tf.export.micro.operators import check_installed
from bmpq_tf.export.micro.runtime import MicroModel, runs_apart, runtime_of
from bmpq_tf.export.tflite.inspection import inspect_content
from bmpq_tf.export.tflite.interpreter import classification_accuracy, in_rank
from bmpq_tf.export.verification.comparison import compare
from bmpq_tf.export.verification.runtimes import PLACES, check_place, runtime_apart

_HINT = "If it is damaged, export it again."

flags.DEFINE_string(
    "data", None, "An .npz file with images (as the model takes them) and integer labels."
)
flags.DEFINE_enum(
    "on",
    "host",
    PLACES,
    "Run the file on this machine, or on an emulated arm64 processor that bmpq-arm64 sets up.",
)
flags.DEFINE_string("keras", None, "A .keras model to compare the file's answers with.")
flags.DEFINE_integer("verbose", 1, "0 shows no progress.")


def main(arguments: list[str]) -> None:
    """Judges the file named on the command line."""
    if len(arguments) != 2:
        raise ValueError(f"Name one .tflite file. Received: {arguments[1:]}. See --help.")
    given = flags.FLAGS
    path = pathlib.Path(arguments[1])
    if not path.is_file():
        raise FileNotFoundError(
            f"No such file. Received: '{path}'. Make one with bmpq_tf.export_tflite or bmpq-export."
        )
    check_place("--on", given.on)
    where = "" if given.on == "host" else f" on {given.on}"
    content = path.read_bytes()
    runtime, name = _runtime(content, path, given.on)
    file = _read(runtime, name, content, path)
    model = load_model(given.keras, "--keras") if given.keras else None
    images, labels = load_arrays(given.data)
    # A file of several inputs is refused below.
    images = in_rank(images, _shape(file.inputs[0]))
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(250)
    _check_inputs_and_outputs(file, path, images.shape[1:])
    if (classes := _shape(file.outputs[0])[1]) > 0:  # -1 is any number.
        check_labels(labels, classes)
    doing = f"Running {path.name} in {name}{where}"
    with progress.shown(doing, verbose=given.verbose), _running(name, content, path):
        accuracy = classification_accuracy(file, progress.counted(batches))
    print(
        f"{path}: accuracy in {name}{where} {accuracy:.2%} on {len(labels):,} images of "
        f"{given.data}"
    )
    if model:
        with progress.shown("Comparing with Keras", verbose=given.verbose):
            parity = compare(model, content, batches, runtime=runtime)
        print(
            f"top-1 equal to {given.keras} on {parity.agreement:.2%}; largest difference "
            f"{parity.max_abs_diff:.2e} of {parity.logit_scale:.1f}"
        )


def _runtime(content: bytes, path: pathlib.Path, place: str):
    """What runs the file, and its name."""
    # Says in a line what is broken.
    inspect_content(content, str(path))
    if runtime_of(content) is not MicroModel:
        return runtime_apart(place), "LiteRT"
    if place != "host":
        raise ValueError(
            f"The file is for TFLM, which runs on this machine only. Received: '{path}', "
            f"--on={place}. Leave --on out."
        )
    check_installed("Running a file in TFLM")
    if not runs_apart(content):
        raise ValueError(
            f"TFLM cannot run the file. Received: '{path}', {len(content):,} bytes. {_HINT}"
        )
    return MicroModel, "TFLM"


def _read(runtime, name: str, content: bytes, path: pathlib.Path):
    with _running(name, content, path, "read"):
        file = runtime(content)
    if not file.inputs or not file.outputs:
        raise ValueError(f"The file has no inputs or no outputs. Received: '{path}'. {_HINT}")
    return file


@contextlib.contextmanager
def _running(name: str, content: bytes, path: pathlib.Path, what: str = "run") -> Iterator[None]:
    """Says what a runtime says of a file, in a line."""
    try:
        yield
    # LiteRT has a ValueError for tensors that a damaged file never fills.
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{name} cannot {what} the file. Received: '{path}', {len(content):,} bytes. It says: "
            f"{first_line(error)} {_HINT}"
        ) from error


def _shape(detail) -> list[int]:
    """An input's or output's sizes, -1 for any; TFLM's are all fixed."""
    return [int(size) for size in detail.get("shape_signature", detail["shape"])]


def _check_inputs_and_outputs(file, path: pathlib.Path, image_shape: tuple[int, ...]) -> None:
    # -1 is any size.
    shapes = [tuple(_shape(detail)[1:]) for detail in file.inputs]
    if (
        len(shapes) != 1
        or len(shapes[0]) != len(image_shape)
        or any(size not in (-1, have) for size, have in zip(shapes[0], image_shape, strict=True))
    ):
        raise ValueError(
            f"The file does not take these images. Received: '{path}' with inputs {shapes}; the "
            f"images are {tuple(image_shape)}. Give other --data."
        )
    answers = [tuple(_shape(detail)) for detail in file.outputs]
    if len(answers) != 1 or len(answers[0]) != 2 or answers[0][1] == 1:
        raise ValueError(
            "Only classifiers are judged: files with one output, of a value for each class. "
            f"Received: '{path}' with outputs {answers}. "
            "bmpq_tf.run_tflite runs any file."
        )


def run() -> None:
    """The console entry point."""
    run_program(main)


if __name__ == "__main__":
    run()
