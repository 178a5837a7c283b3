"""Where images come from: scikit-learn's digits (embedded), tfds, Tiny-ImageNet's folders, and the
spoken digits' recordings.
"""

from collections.abc import Callable

import numpy as np

from bmpq_research.datasets.image_dataset import DatasetNotFoundError, ImageDataset
from bmpq_research.datasets.spoken_digits import spoken_digits
from bmpq_research.datasets.tiny_imagenet import tiny_imagenet

# What the tools say of the flags that become the arguments below.
DATA_DIR_HELP = (
    "Where the data sets are: the folder of tfds (its own default if not given); for tiny_imagenet "
    "the folder that its archive was "
    "extracted to, and for spoken_digits that of spoken_digits.npz (the current one if not given)."
)
DOWNLOAD_HELP = (
    "Fetch a data set that is missing, if tfds has it: tiny_imagenet and spoken_digits are not "
    "there."
)


def load_dataset(name: str, data_dir: str | None = None, *, download: bool = False) -> ImageDataset:
    """Loads a data set by name.

    Args:
        name: one of `DATASETS`.
        data_dir: where the files are: tfds's folder, its own default if `None`; for `tiny_imagenet`
            the folder with `wnids.txt`, for `spoken_digits` that with `spoken_digits.npz`, or the
            one above it. `digits` needs none.
        download: whether tfds may fetch what is missing.

    Raises:
        ValueError: the name is not known.
        DatasetNotFoundError: the files are not there; the message says what was looked for.
    """
    if name not in DATASETS:
        raise ValueError(
            f"Unknown dataset. Received: dataset={name!r}. Known: {', '.join(DATASETS)}."
        )
    return DATASETS[name](name, data_dir, download)


def _digits(name: str, data_dir: str | None, download: bool) -> ImageDataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8, 1) * (255 / 16)).round().astype(np.uint8)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=360, random_state=0, stratify=labels
    )
    return ImageDataset(name, (train_x, train_y), (test_x, test_y), 10, augment=False)


def _tfds(name: str, data_dir: str | None, download: bool) -> ImageDataset:
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.data_path.exists():
        if not download:
            raise DatasetNotFoundError(
                f"Dataset '{name}' was not found. Looked for '{builder.data_path}'. Give "
                "--data_dir the folder that holds "
                f"'{name}/', or let tools/train.py or tools/compare.py fetch it with --download."
            )
        builder.download_and_prepare()
    else:
        _check_whole(builder)
    pairs = {split: _arrays(builder.as_dataset(split=split)) for split in ("train", "test")}
    return ImageDataset(
        name,
        pairs["train"],
        pairs["test"],
        builder.info.features["label"].num_classes,
        augment=True,
    )


def _arrays(examples) -> tuple[np.ndarray, np.ndarray]:
    """Reads a split of tfds into images and labels, in its order."""
    parts = list(examples.batch(1000).prefetch(2).as_numpy_iterator())
    return np.concatenate([part["image"] for part in parts]), np.concatenate(
        [part["label"] for part in parts]
    ).astype(np.int64)


def _check_whole(builder) -> None:
    """A folder that was copied or extracted in part has tfds's metadata, but not all the files that
    they name.
    """
    named = [
        path
        for split in ("train", "test")
        if split in builder.info.splits
        for path in builder.info.splits[split].filepaths
    ]
    missing = [path.name for path in named if not path.exists()]
    if missing or not named:
        lacking = ", ".join(missing) or "dataset_info.json or its splits"
        raise DatasetNotFoundError(
            f"Dataset '{builder.name}' is not whole. Looked in '{builder.data_path}', which lacks "
            f"{lacking}. Copy or extract it again."
        )


DATASETS: dict[str, Callable[[str, str | None, bool], ImageDataset]] = {
    "digits": _digits,
    "cifar10": _tfds,
    "cifar100": _tfds,
    "spoken_digits": spoken_digits,
    "tiny_imagenet": tiny_imagenet,
}
