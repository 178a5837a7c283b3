"""`--report` of the commands: one page of what they made."""

import pathlib
from collections.abc import Sequence

import keras
import numpy as np
from absl import flags

from bmpq_tf.arguments import real
from bmpq_tf.cli.arrays import has_labels, load_arrays
from bmpq_tf.cli.models import check_labels, is_classifier
from bmpq_tf.cli.program import command
from bmpq_tf.export.checks import check_writable
from bmpq_tf.export.micro.runtime import runtime_of
from bmpq_tf.export.report import ExportReport
from bmpq_tf.export.tflite.interpreter import classification_accuracy, in_rank
from bmpq_tf.reporting.report import write_report
from bmpq_tf.reporting.sizes import FLOAT, INT8, KERAS, TFLITE

_BATCH = 250

flags.DEFINE_string(
    "report",
    None,
    "Also write what was made as one HTML page: widths, sensitivities, bytes, answers. With "
    "labels in --verify_with also accuracies.",
)
flags.DEFINE_list(
    "accuracy",
    None,
    "Accuracies for --report to show beside those of the file, such as float=0.981,int8=0.979.",
)


def check_flags(given: flags.FlagValues) -> None:
    """Raises before any work what `write` would raise after it."""
    if given.report:
        check_writable(given.report, given.overwrite)
    elif given.accuracy:
        raise ValueError(
            f"--accuracy is for the report. Received: --accuracy={','.join(given.accuracy)} "
            "without --report. Name the page with --report=report.html."
        )
    _told(given.accuracy)


def write(given: flags.FlagValues, model: keras.Model, report: ExportReport, data: str | None):
    """Writes the page that `--report` names.

    Args:
        given: the flags.
        model: that was exported.
        report: of its file.
        data: the path of the inputs that it was verified on, which may hold labels.
    """
    measured = {} if given.inputs else _measured(model, report, data)
    write_report(
        given.report,
        model,
        report,
        accuracy=measured | _told(given.accuracy),
        budget=given.budget,
        command=command(),
        overwrite=given.overwrite,
    )
    print(f"{given.report}: the report")


def _told(words: Sequence[str] | None) -> dict[str, float]:
    """What `--accuracy` says, as numbers."""
    told = {}
    for word in words or ():
        name, _, value = word.partition("=")
        number = _number(value)
        if not name or number is None or not 0 <= number <= 1:
            raise ValueError(
                "Accuracies are shares from 0 to 1, by name. Received: --accuracy="
                f"{','.join(words or ())}. Say {FLOAT}=0.981,{INT8}=0.979."
            )
        told[name] = number
    return told


def _number(word: str) -> float | None:
    try:
        return real(float(word))
    except ValueError:
        return None


def _measured(model: keras.Model, report: ExportReport, data: str | None) -> dict[str, float]:
    """Accuracies of the model and of its file, where there are labels of a classifier's classes."""
    flag = "--verify_with"
    if not data or not is_classifier(model) or not has_labels(data, flag):
        return {}
    try:
        images, labels = load_arrays(data, flag, model.inputs[0].name)
        check_labels(labels, model.outputs[0].shape[1])
    # The file is written; its page can do without.
    except ValueError as error:
        print(f"No accuracies in the report: {error}")
        return {}
    images = in_rank(images, model.inputs[0].shape)
    starts = range(0, len(labels), _BATCH)
    batches = [(images[one : one + _BATCH], labels[one : one + _BATCH]) for one in starts]
    scores = model.predict(images, batch_size=_BATCH, verbose=0)  # pyright: ignore[reportArgumentType]
    content = pathlib.Path(report.path).read_bytes()
    return {
        KERAS: float(np.mean(scores.argmax(-1) == labels)),
        TFLITE: classification_accuracy(runtime_of(content)(content), batches),
    }
