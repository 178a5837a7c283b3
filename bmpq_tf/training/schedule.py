"""When a run decides: warm-up, decisions, settling (METHOD.md, "Schedule")."""

import dataclasses
import itertools

from bmpq_tf.arguments import whole


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The epochs in which widths may change.

    Attributes:
        warmup_epochs: epochs before the first decision, at least 1.
        interval_epochs: epochs between decisions, at least 1.
        settle_epochs: epochs at the end without a decision, at least 1; a third of them if `None`.

    Raises:
        ValueError: a number is no whole number of 1 or more.
    """

    warmup_epochs: int = 1
    interval_epochs: int = 1
    settle_epochs: int | None = None

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            epochs = whole(value)
            if value is not None and (epochs is None or epochs < 1):
                raise ValueError(
                    f"{name} must be a whole number of epochs, 1 or more. Received: "
                    f"{name}={value!r}."
                )
            object.__setattr__(self, name, epochs)

    def settling(self, epochs: int) -> int:
        """Returns how many of so many epochs settle."""
        return self.settle_epochs if self.settle_epochs is not None else max(1, epochs // 3)

    def last_decision(self, epochs: int) -> int:
        """Returns the last epoch, counted from 0, before which a decision may fall."""
        return epochs - self.settling(epochs)

    def decides(self, epoch: int, epochs: int) -> bool:
        """Whether a decision falls before an epoch, counted from 0."""
        within = self.warmup_epochs <= epoch <= self.last_decision(epochs)
        return within and (epoch - self.warmup_epochs) % self.interval_epochs == 0

    def check(self, epochs: int) -> None:
        """Raises ValueError if so many epochs have no room for a decision."""
        if self.warmup_epochs <= self.last_decision(epochs):
            return
        # By default a longer fit settles for longer.
        enough = next(
            number
            for number in itertools.count(epochs + 1)
            if self.warmup_epochs <= self.last_decision(number)
        )
        raise ValueError(
            f"fit is too short for a warm-up of {self.warmup_epochs}, one decision and "
            f"{self.settling(epochs)} epochs of settling: "
            f"it needs at least {enough} epochs. Received: epochs={epochs}. "
            "Train longer, or give BMPQCallback smaller warmup_epochs or settle_epochs."
        )

    def check_begin(self, begin: int, first: int, epochs: int) -> None:
        """Raises ValueError if a fit that begins in the middle never decides.

        Args:
            begin: its first epoch, counted from 0.
            first: the first before which it could decide.
            epochs: of the fit, those before `begin` included.
        """
        last = self.last_decision(epochs)
        if any(self.decides(epoch, epochs) for epoch in range(first, last + 1)):
            return
        raise ValueError(
            f"fit begins at epoch {begin + 1} of {epochs} and settles after epoch {last}: no "
            "decision lies between, and none was made before under this budget. Received: "
            f"initial_epoch={begin}, epochs={epochs}. Epochs of another model do not count: leave "
            "initial_epoch out, or give a larger epochs."
        )
