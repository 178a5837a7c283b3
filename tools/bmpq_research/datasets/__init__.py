"""Image classification data sets in memory, and batches whose order and augmentation are functions
of (seed, epoch).
"""

from bmpq_research.datasets.batches import (
    EpochCounter,
    batches_of,
    evaluation_batches,
    normalised_test_images,
    normalised_training_images,
    training_batches,
)
from bmpq_research.datasets.image_dataset import DatasetNotFoundError, ImageDataset
from bmpq_research.datasets.sources import DATA_DIR_HELP, DATASETS, DOWNLOAD_HELP, load_dataset

__all__ = [
    "DATASETS",
    "DATA_DIR_HELP",
    "DOWNLOAD_HELP",
    "DatasetNotFoundError",
    "EpochCounter",
    "ImageDataset",
    "batches_of",
    "evaluation_batches",
    "load_dataset",
    "normalised_test_images",
    "normalised_training_images",
    "training_batches",
]
