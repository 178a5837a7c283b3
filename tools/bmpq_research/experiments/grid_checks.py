"""What the methods of a grid cannot be asked for."""

from collections.abc import Sequence

from bmpq_research.experiments.train_config import TrainConfig, allocation_callback
from bmpq_tf.allocation.budget import Budget

REFERENCE = "size of "
_NOT_FOR_TFMOT = (
    *("schedule", "lr_restart", "label_smoothing", "distillation", "self_distillation"),
    *("average", "batchnorm_batches", "precision", "drop_channels"),
)


def check_method(
    method: str, takes_budget: bool, config: TrainConfig, budgets: Sequence[str]
) -> None:
    """Raises ValueError for settings or budgets that a method has no use for, or would take for
    something else.
    """
    if takes_budget:
        allocation_callback(config).schedule.check(config.epochs)
    if method == "tfmot_int8":
        _check_tfmot(config)
    if method == "activation_density" and config.self_distillation:
        raise ValueError(
            "Activation density looks into the model that is fitted, which is a trainer there. "
            f"Received: methods=[{method!r}], self_distillation={config.self_distillation}. Leave "
            "one out of this block."
        )
    if config.drop_channels:
        _check_drops(method, config, budgets)


def checked_budget(budget: object) -> str:
    """Returns a budget, or a reference to another cell's size, as text."""
    said = str(budget)
    if said and not said.startswith(REFERENCE):
        Budget.parse(said)
    return said


def _check_tfmot(config: TrainConfig) -> None:
    beyond = [
        name for name in _NOT_FOR_TFMOT if getattr(config, name) != getattr(TrainConfig(), name)
    ]
    if beyond:
        said = ", ".join(f"{name}={getattr(config, name)!r}" for name in beyond)
        raise ValueError(
            f"tfmot_int8 trains by the plain recipe only. Received: {said}. Leave it out of "
            "this block or grid."
        )


def _check_drops(method: str, config: TrainConfig, budgets: Sequence[str]) -> None:
    """Other sensitivities are of the wider network, and a compression means something else once
    channels are gone.
    """
    if method not in ("bmpq", "bmpq_from_float") or not all(
        said.startswith(REFERENCE) or set(Budget.parse(said).to_dict()) == {"weight_bytes"}
        for said in budgets
    ):
        raise ValueError(
            "Channels are dropped by bmpq, under budgets of bytes. Received: "
            f"drop_channels={config.drop_channels!r}, methods=[{method!r}], budgets={budgets}. "
            "Give a block of its own, with budgets such as 15 kB."
        )
