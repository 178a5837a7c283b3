"""One YAML file becomes a grid of cells: model x data set x method x budget x seed.

The file holds settings of `TrainConfig`, which all cells share, a list of `seeds`, and a `grid`: a
list of blocks. A block names `methods`, and `budgets` for those that take one; it may have
`models`, `datasets`, `seeds` and settings of its own:

    model: resnet20
    channel_multiplier: 0.5
    dataset: cifar10
    epochs: 10
    validation: 5000
    seeds: [0, 1, 2]
    grid:
      - methods: [float32, uniform3]
      - methods: [bmpq, random]
        budgets: [12x, size of uniform3]
      - methods: [bmpq]
        budgets: [12x]
        objective: squared
"""

import dataclasses
import itertools
import os
import pathlib
import re
from typing import Any

import yaml

from bmpq_research.datasets import DATASETS
from bmpq_research.experiments.grid_checks import REFERENCE, check_method, checked_budget
from bmpq_research.experiments.methods import METHODS
from bmpq_research.experiments.train_config import TrainConfig, check_config
from bmpq_research.models import MODELS
from bmpq_tf.layers.config import checked_candidates

# A model may be written with its channel multiplier, as resnet20@0.5.
_AXES = {"models": "model", "datasets": "dataset"}
# What a cell's other parts decide, or what decides nothing.
NOT_SETTINGS = ("data_dir", "download", "backup_dir", "with_float", "sensitivity", "seed", "budget")
SETTINGS = tuple(
    field.name for field in dataclasses.fields(TrainConfig) if field.name not in NOT_SETTINGS
)
_BLOCK = "a block of the grid"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        method: one of `METHODS`.
        budget: as people say it, or `"size of <method>"`; empty for methods that take none.
        config: everything else that decides the outcome, seed included.
        changes: the settings that its block changed, as `name=value` words.
    """

    method: str
    budget: str
    config: TrainConfig
    changes: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        """What tells it from others of the same model, data set and seed.

        `bmpq/12x[objective=squared]`.
        """
        changed = f"[{','.join(self.changes)}]" if self.changes else ""
        return f"{self.method}{f'/{self.budget}' if self.budget else ''}{changed}"

    @property
    def setting(self) -> str:
        """Model, channel multiplier and data set."""
        return f"{self.config.model}@{self.config.channel_multiplier:g}/{self.config.dataset}"

    @property
    def key(self) -> str:
        """Its name in results files."""
        return self.named(self.part)

    def named(self, part: str) -> str:
        """Returns the key of a cell of the same model, data set and seed."""
        return f"{self.setting}/{part}/seed{self.config.seed}"

    @property
    def reference(self) -> str | None:
        """The key of the cell whose size is this one's budget, or `None`."""
        return (
            self.named(self.budget.removeprefix(REFERENCE))
            if self.budget.startswith(REFERENCE)
            else None
        )

    @property
    def float_cell(self) -> str | None:
        """The key of the cell whose trained float model this one starts from or is taught by, or
        `None`.
        """
        taught = self.config.distillation and self.method != "float32"
        return self.named("float32") if METHODS[self.method].from_float or taught else None

    @property
    def needs(self) -> tuple[str, ...]:
        """The keys of the cells that have to be done before."""
        return tuple(key for key in (self.reference, self.float_cell) if key)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides its outcome, as plain data.

        A result is of this cell if these are equal.
        """
        values = {name: getattr(self.config, name) for name in SETTINGS}
        return {
            **values,
            "candidate_bits": list(values["candidate_bits"]),
            "seed": self.config.seed,
            "method": self.method,
            "budget": self.budget,
        }


def read_grid(path: str | os.PathLike) -> list[Cell]:
    """Reads a YAML file into its cells, those that others refer to first.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML, or something in it is not known; the message lists what is.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no such file. Received: config='{path}'. Examples are in examples/configs/."
        )
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(
            f"The file is not YAML. Received: config='{path}'. It says: "
            f"{' '.join(str(error).split())}"
        ) from error
    return cells(content)


def cells(content: Any) -> list[Cell]:
    """Builds the grid from a config file's content."""
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("grid"), list)
        or not content["grid"]
    ):
        raise ValueError(
            f"A config needs a `grid`, a list of blocks with `methods`. Received: {content!r}."
        )
    shared = {name: value for name, value in content.items() if name not in ("grid", "seeds")}
    _check_settings(shared, "the config")
    found = {
        cell.key: cell
        for block in content["grid"]
        for cell in _block(block, shared, content.get("seeds", [0]))
    }
    for cell in found.values():
        if lacking := [key for key in cell.needs if key not in found]:
            raise ValueError(
                f"A cell needs another one that is not in the grid. Received: {cell.key}, which "
                f"needs {' and '.join(lacking)}. "
                "Add its method, with the same seeds."
            )
    return sorted(found.values(), key=lambda cell: (_depth(cell, found), cell.config.seed))


def _block(block: Any, shared: dict, seeds: list) -> list[Cell]:
    if not isinstance(block, dict) or not block.get("methods"):
        raise ValueError(
            f"A block of the grid needs `methods`. Received: {block!r}. Known: "
            f"{', '.join(METHODS)}."
        )
    own = {
        name: value
        for name, value in block.items()
        if name not in ("methods", "budgets", "seeds", *_AXES)
    }
    _check_settings(own, _BLOCK)
    axes = [
        [(one, value) for value in _list(block, many)] if many in block else [()]
        for many, one in _AXES.items()
    ]
    made = []
    for method, seed, *chosen in itertools.product(
        _list(block, "methods"), _list(block, "seeds", seeds), *axes
    ):
        if method not in METHODS:
            raise ValueError(
                f"Unknown method. Received: methods=[{method!r}]. Known: {', '.join(METHODS)}."
            )
        budgets = _list(block, "budgets", []) if METHODS[method].takes_budget else [""]
        if not budgets:
            raise ValueError(
                f"Method {method!r} needs a budget. Received: {block!r}. Add `budgets`, such as "
                "[12x, size of uniform3]."
            )
        config = _config({**shared, **own, **dict(pair for pair in chosen if pair)}, seed)
        budgets = [checked_budget(budget) for budget in budgets]
        check_method(method, METHODS[method].takes_budget, config, budgets)
        changes = tuple(
            f"{name}={_word(value)}"
            for name, value in sorted(own.items())
            if name not in ("model", "channel_multiplier", "dataset")
        )
        made += [Cell(method, budget, config, changes) for budget in budgets]
    return made


def _config(values: dict, seed: Any) -> TrainConfig:
    values = dict(values)
    if "@" in str(values.get("model", "")):
        values["model"], multiplier = values["model"].split("@", 1)
        values["channel_multiplier"] = _number(multiplier, "model")
    for name, known in (("model", MODELS), ("dataset", DATASETS)):
        if name in values and values[name] not in known:
            raise ValueError(
                f"Unknown {name}. Received: {name}={values[name]!r}. Known: {', '.join(known)}."
            )
    if not isinstance(seed, int):
        raise ValueError(f"Seeds are whole numbers. Received: seeds=[{seed!r}].")
    if "candidate_bits" in values:
        values["candidate_bits"] = checked_candidates(values["candidate_bits"])
    # YAML reads `none` as a word and `null` as nothing.
    if values.get("activation_bits", 0) in (None, "none"):
        values["activation_bits"] = 0
    config = TrainConfig(**values, seed=seed)
    check_config(config)
    return config


def _check_settings(values: dict, where: str) -> None:
    unknown = sorted(set(values) - set(SETTINGS))
    if unknown:
        parts = (
            "methods, budgets, seeds, models, datasets" if where == _BLOCK else "seeds, grid"
        ) + ", and settings: "
        raise ValueError(
            f"Unknown settings in {where}. Received: {', '.join(map(str, unknown))}. Known: "
            f"{parts}{', '.join(SETTINGS)}."
        )
    defaults = TrainConfig()
    for name, value in values.items():
        default = getattr(defaults, name)
        if isinstance(value, str) and (default is None or isinstance(default, float)):
            # YAML reads 5e-4 as a word, because it has no point.
            values[name] = _number(value, name)


def _number(word: str, name: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"Expected a number. Received: {name}={word!r}.") from None


def _list(block: dict, name: str, default: list | None = None) -> list:
    value = block.get(name, default)
    return value if isinstance(value, list) else [value]


def _word(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _depth(cell: Cell, grid: dict[str, Cell]) -> int:
    return max((1 + _depth(grid[key], grid) for key in cell.needs), default=0)


def file_name(key: str) -> str:
    """Returns a cell's key as a name that files may have."""
    return re.sub(r"[^\w.@=,+-]+", "_", key)
