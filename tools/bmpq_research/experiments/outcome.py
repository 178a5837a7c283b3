"""What a training run writes: the packed file, the Keras models, reports and the picture."""

import dataclasses
import json
import os
import pathlib
from typing import Any

from bmpq_research.datasets import normalised_training_images
from bmpq_research.experiments.train_config import TrainConfig
from bmpq_research.experiments.training import Run
from bmpq_tf.export.checks import check_writable
from bmpq_tf.export.micro.runtime import runtime_of
from bmpq_tf.export.pipeline import export_tflite
from bmpq_tf.export.report import ExportReport
from bmpq_tf.export.tflite.interpreter import classification_accuracy
from bmpq_tf.files import replacing, write_text
from bmpq_tf.model.allocation_plot import plot_allocations
from bmpq_tf.model.kernels import model_kernels
from bmpq_tf.reporting.report import write_report

FILES = ("model.tflite", "model.keras", "float.keras", "report.json", "report.html", "bits.png")
_CALIBRATED = 512
_ELSEWHERE = ("data_dir", "download", "backup_dir")
# There while an outcome is written, and after a kill: whose half lies here.
_UNFINISHED = ".unfinished.json"


def check_folder(
    folder: str | os.PathLike,
    overwrite: bool,
    config: TrainConfig | None = None,
    optimize_for: str = "size",
    io_dtype: str | None = None,
) -> pathlib.Path:
    """Returns the folder if the outcome can be written there, and raises before any training if
    not.

    Args:
        folder: that `write_outcome` will be given.
        overwrite: whether the files of an earlier run may be replaced.
        config, optimize_for, io_dtype: of the run. A half that a kill has left of its own outcome
            may be replaced in any case.
    """
    folder = pathlib.Path(folder)
    overwrite = overwrite or _is_left_by(folder, _settings(config, optimize_for, io_dtype))
    for name in FILES:
        check_writable(folder / name, overwrite)
    return folder


def _settings(config: TrainConfig | None, optimize_for: str, io_dtype: str | None) -> dict:
    """What decides an outcome, as JSON gives it back; where data and backups lie does not."""
    told = dataclasses.asdict(config) if config else {}
    decisive = {key: told[key] for key in told if key not in _ELSEWHERE}
    return json.loads(
        json.dumps({"config": decisive, "optimize_for": optimize_for, "io_dtype": io_dtype})
    )


def _is_left_by(folder: pathlib.Path, settings: dict) -> bool:
    file = folder / _UNFINISHED
    return file.exists() and json.loads(file.read_text()) == settings


def _remove_halves(folder: pathlib.Path) -> None:
    """Removes the temporary files that a kill has left."""
    for path in [*map(pathlib.Path, FILES), pathlib.Path(_UNFINISHED)]:
        for half in folder.glob(f".{path.stem}-*{path.suffix}"):
            half.unlink()


def write_outcome(
    run: Run,
    folder: str | os.PathLike,
    overwrite: bool = False,
    *,
    optimize_for: str = "size",
    io_dtype: str | None = None,
    command: str | None = None,
) -> tuple[ExportReport, dict[str, float]]:
    """Exports the model, judges the file in the runtime that it is for, and writes everything into
    a folder.

    Args:
        run: that was trained.
        folder: where to.
        overwrite: whether the files of an earlier run may be replaced.
        optimize_for, io_dtype: as `export_tflite` takes them; where that calibrates, it does so on
            training images.
        command: that made the run, for `report.html`.

    Returns:
        The report of the export; the accuracies of the models, as `Run` has them, and of the file.
    """
    folder = check_folder(folder, overwrite, run.config, optimize_for, io_dtype)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_halves(folder)
    write_text(
        folder / _UNFINISHED, json.dumps(_settings(run.config, optimize_for, io_dtype), indent=1)
    )
    try:
        judged = _write_files(run, folder, optimize_for, io_dtype, command)
    except Exception:
        # The same command would be refused again.
        (folder / _UNFINISHED).unlink()
        raise
    (folder / _UNFINISHED).unlink()
    return judged


def _write_files(
    run: Run,
    folder: pathlib.Path,
    optimize_for: str,
    io_dtype: str | None,
    command: str | None,
) -> tuple[ExportReport, dict[str, float]]:
    # First of all: an export that is refused should not cost the training.
    with replacing(folder / "model.keras") as temporary:
        run.model.save(temporary)
    for name in set(FILES) - {"model.keras"}:
        (folder / name).unlink(missing_ok=True)
    if run.float_model is not None:
        with replacing(folder / "float.keras") as temporary:
            run.float_model.save(temporary)
    exported = export_tflite(
        run.model,
        folder / "model.tflite",
        optimize_for=optimize_for,
        verify_with=run.judged_batches(),
        calibrate_with=None
        if optimize_for in ("size", "latency")
        else normalised_training_images(run.dataset, _CALIBRATED),
        io_dtype=io_dtype,
        overwrite=True,
    )
    content = (folder / "model.tflite").read_bytes()
    accuracy = {
        **run.accuracy,
        "tflite": classification_accuracy(runtime_of(content)(content), run.judged_batches()),
    }
    write_text(folder / "report.json", json.dumps(report(run, exported, accuracy), indent=1))
    title = f"{run.config.model} on {run.config.dataset}, {run.config.budget}"
    write_report(
        folder / "report.html",
        run.model,
        exported,
        run.logs,
        accuracy=accuracy,
        title=title,
        command=command,
        overwrite=True,
    )
    plot_allocations(run.callback.history, folder / "bits.png", title)
    return exported, accuracy


def report(run: Run, exported: ExportReport, accuracy: dict[str, float]) -> dict[str, Any]:
    """Collects a run's figures as plain data."""
    told = exported.to_dict()
    # The same wherever it is written to.
    del told["path"]
    return {
        "budget": str(run.callback.budget),
        "budget_bits": run.callback.budget.bits([one.kernel for one in model_kernels(run.model)]),
        "accuracy": accuracy,
        "judged_on": judged_on(run.config),
        **told,
        "allocations": [
            {key: allocation[key] for key in ("epoch", "status", "bits")}
            for allocation in run.callback.history
        ],
        # Everything that decided the outcome; where data and backups lay did not.
        "config": {
            name: value
            for name, value in dataclasses.asdict(run.config).items()
            if name not in _ELSEWHERE
        },
    }


def judged_on(config: TrainConfig) -> str:
    """Returns which images accuracies are of, in words."""
    return "the last training images" if config.validation else "the test set"
