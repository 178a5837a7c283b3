"""One data set as an experiment sees it: what trains, and what judges."""

import dataclasses

from bmpq_research.datasets import ImageDataset, load_dataset
from bmpq_research.experiments.train_config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Splits:
    """One data set as a cell sees it: it trains on the first part and is judged on the others.

    Attributes:
        data: what tells the whole data set from others of its name.
        train: the training images, with the validation split or else the test set as `test`.
        judged: by name (`validation`, where there is one, and `test`), the same training images
            with that split as `test`.
    """

    data: str
    train: ImageDataset
    judged: dict[str, ImageDataset]


def load_splits(config: TrainConfig) -> Splits:
    """Loads a configuration's images; `validation` images are the last ones of the training set."""
    whole = load_dataset(config.dataset, config.data_dir, download=config.download)
    data = whole.fingerprint()
    if not config.validation:
        return Splits(data, whole, {"test": whole})
    held = whole.with_validation(config.validation)
    return Splits(
        data, held, {"validation": held, "test": dataclasses.replace(held, test=whole.test)}
    )
