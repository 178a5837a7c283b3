"""`write_report`: one page of a trained model and its file."""

import math
import os
from collections.abc import Mapping
from typing import Any

import keras

from bmpq_tf.allocation.budget import Budget
from bmpq_tf.arguments import real
from bmpq_tf.export.checks import check_writable
from bmpq_tf.export.report import ExportReport
from bmpq_tf.files import write_bytes
from bmpq_tf.reporting.facts import collect
from bmpq_tf.reporting.html import as_html
from bmpq_tf.reporting.sections import sections
from bmpq_tf.reporting.text import as_text


def write_report(
    path: str | os.PathLike,
    model: keras.Model,
    export_report: ExportReport | None = None,
    history: Any = None,
    *,
    accuracy: Mapping[str, float] | None = None,
    file_bytes: Mapping[str, int] | None = None,
    metric: str = "accuracy",
    budget: "str | float | Budget | None" = None,
    title: str | None = None,
    command: str | None = None,
    overwrite: bool = False,
) -> str:
    """Writes one HTML page of a trained model and its file, to be read and passed around.

    Widths and sensitivities of every kernel over the epochs, where the bytes lie, sizes and
    accuracies beside float32 and int8, how the file's answers compare with Keras's, the budget,
    what stays float and why, versions. The page is whole in itself: it loads nothing from any
    network and runs no script. It follows the reader's light or dark theme and can be printed.

    Args:
        path: where the page goes; parent folders are made.
        model: from `quantize_model`, trained; it keeps its allocations itself. A float model is
            told as float.
        export_report: what `export_tflite` returned for this model as it is now; without one the
            page is of the model alone.
        history: of the training, for its curves: what `fit` returned, its `history`, or a list
            with a dict for each epoch. `BMPQCallback.history` stands for the model's allocations.
        accuracy: shares or other values, by `"float"` and `"int8"`, other forms of the same model,
            `"keras"`, the trained model, and `"tflite"`, its file; other names get rows of their
            own.
        file_bytes: sizes of files, in bytes, of such other forms.
        metric: what `accuracy` holds; shares are shown in per cent where its name has `"acc"`.
        budget: what the widths are compared with; by default that of the last training under one.
        title: of the page; the model's name by default.
        command: how the model was made, as it shall be shown; nothing by default.
        overwrite: whether an existing file may be replaced.

    Returns:
        The page's tables as text, in Markdown.

    Raises:
        FileExistsError: the path exists and `overwrite` is false.
        PermissionError: the path cannot be written to.
        ValueError: the report is of another model or another state of it, the model has no
            kernels or is not built, or an argument is not understood.

    Example:
        >>> file = bmpq_tf.export_tflite(model, folder / "model.tflite", verify_with=images)
        >>> told = {"float": 0.97, "keras": 0.96, "tflite": 0.96}
        >>> text = bmpq_tf.write_report(folder / "report.html", model, file, accuracy=told)
        >>> print(text)
        # small
        ...
        | this file         |          1,476 |                4.00x | ... | 96.00% |  -1.00 points |
        ...
        | head/kernel |   1,440 |    8 |         8 | 1,440 | ...
    """
    check_writable(path, overwrite)
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"model is a keras.Model that is built. Received: model={model!r}.")
    if export_report is not None and not isinstance(export_report, ExportReport):
        raise ValueError(
            "export_report is what export_tflite returned. Received: export_report of type "
            f"{type(export_report)}."
        )
    facts = collect(
        model,
        export_report,
        history,
        accuracy=_numbers(accuracy, "accuracy"),
        file_bytes={name: int(size) for name, size in _numbers(file_bytes, "file_bytes").items()},
        metric=metric,
        budget=budget,
        title=title,
        command=command,
    )
    parts = sections(facts)
    text = as_text(facts, parts)
    write_bytes(path, as_html(facts, parts, text).encode())
    return text


def _numbers(given: Mapping[str, Any] | None, name: str) -> dict[str, float]:
    """A mapping from names to finite numbers, checked."""
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(
            f"{name} maps names such as 'float' and 'tflite' to numbers. Received: {name}="
            f"{given!r}."
        )
    numbers: dict[str, float] = {}
    for key, value in (given or {}).items():
        number = real(value)
        if number is None or not math.isfinite(number):
            raise ValueError(f"{name} holds numbers. Received: {name} with {key!r}: {value!r}.")
        numbers[str(key)] = number
    return numbers
