"""Which run a folder of backups is of, so that another does not go on from it."""

import dataclasses
import json
import pathlib
from typing import Any

from bmpq_research.experiments.train_config import TrainConfig
from bmpq_tf.files import write_text


def check_backup(config: TrainConfig, data: str | None = None) -> None:
    """Refuses to resume a run that was another one.

    Args:
        config: of the run.
        data: its images' fingerprint; `None` while they are not loaded.

    Raises:
        ValueError: the backup was made with other settings or images; the message says which.
    """
    file = _backup_note(config)
    if file and file.exists():
        told = _told(config)
        known = {**dataclasses.asdict(TrainConfig()), **json.loads(file.read_text())}
        # Earlier versions did not note the images.
        if data and "data" in known:
            told["data"] = data
        different = sorted(key for key in told if told[key] != known.get(key))
        if different:
            was = ", ".join(f"{key}={known.get(key)!r}" for key in different)
            now = ", ".join(f"{key}={told[key]!r}" for key in different)
            raise ValueError(
                f"The backup in '{config.backup_dir}' is of another run. Received: {now}; the "
                f"backup has {was}. "
                "Go on with what it has, or remove that folder to start anew."
            )


def note_backup(config: TrainConfig, data: str) -> None:
    """Says in the backup's folder whose it is.

    To be called once nothing more can be refused, or what was refused would own the folder.
    """
    file = _backup_note(config)
    if file and not file.exists():
        write_text(file, json.dumps({**_told(config), "data": data}, indent=1))


def _backup_note(config: TrainConfig) -> pathlib.Path | None:
    return pathlib.Path(config.backup_dir) / "config.json" if config.backup_dir else None


def _told(config: TrainConfig) -> dict[str, Any]:
    """What decides the run, as JSON gives it back."""
    return json.loads(
        json.dumps(
            {**dataclasses.asdict(config), "backup_dir": None, "data_dir": None, "download": None}
        )
    )
