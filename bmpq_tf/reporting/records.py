"""What a report tells, as plain records."""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class KernelFacts:
    """One kernel.

    Attributes:
        name: its variable path.
        weights: how many.
        bits: its width; 32 for float.
        stored_bits: the width of its container in the file; `None` where it is in no file.
        pinned: whether its width is fixed by decision.
        compute: how the file computes with it, in words, or empty.
        note: why it is stored wider than its width, or empty.
        why_float: why it stays float, or empty.
        widths: at each allocation; `None` where it was not there yet.
        sensitivities: likewise; `None` also where none was measured.
    """

    name: str
    weights: int
    bits: int
    stored_bits: int | None = None
    pinned: bool = False
    compute: str = ""
    note: str = ""
    why_float: str = ""
    widths: tuple[int | None, ...] = ()
    sensitivities: tuple[float | None, ...] = ()

    @property
    def held_bits(self) -> int:
        """The width in the file, or in the model where there is no file."""
        return self.bits if self.stored_bits is None else self.stored_bits

    @property
    def bytes(self) -> int:
        """What its weights take at that width."""
        return -(-self.weights * self.held_bits // 8)

    @property
    def sensitivity(self) -> float | None:
        """As of the last allocation."""
        return self.sensitivities[-1] if self.sensitivities else None


@dataclasses.dataclass(frozen=True)
class Part:
    """Some bytes of the file.

    Attributes:
        name: what lies there.
        bytes: how many.
        look: the class that the style sheet colours it by.
    """

    name: str
    bytes: int
    look: str


@dataclasses.dataclass(frozen=True)
class Form:
    """One form of the model, to compare sizes and accuracies.

    Attributes:
        name: such as `"float32"`.
        weight_bytes: of its kernels.
        file_bytes: of its file, where that is known.
        accuracy: where that is known.
        is_ours: whether it is the one that the report is of.
    """

    name: str
    weight_bytes: int | None = None
    file_bytes: int | None = None
    accuracy: float | None = None
    is_ours: bool = False


@dataclasses.dataclass(frozen=True)
class Use:
    """What the model takes of one limit of its budget.

    Attributes:
        name: what is limited.
        used: how much is used; `None` where only a device's file would tell.
        allowed: how much may be.
    """

    name: str
    used: float | None
    allowed: float

    @property
    def share(self) -> float:
        """Of what is allowed; 0 where it is not known."""
        return 0.0 if self.used is None or self.allowed <= 0 else self.used / self.allowed


@dataclasses.dataclass(frozen=True)
class Facts:
    """Everything that a report tells.

    Attributes:
        title: of the page.
        kernels: in the model's order.
        epochs: before which each allocation fell, counted from 1.
        logs: of training, by name: a value for each epoch, `None` where there is none.
        log_epochs: their epochs, counted from 1.
        forms: of the model, to compare.
        metric: what accuracies are of.
        parts: of the file, or of the kernels where there is no file.
        parity: labels and values.
        budget: it in words, or empty.
        uses: what is used of it.
        about: labels and values of the file, versions and the command.
        compression: how many times fewer parameter bits than float32.
        file: its name, or empty.
        alike: the share of equal top-1, where that was compared.
    """

    title: str
    kernels: tuple[KernelFacts, ...]
    epochs: tuple[int, ...] = ()
    logs: Mapping[str, Sequence[float | None]] = dataclasses.field(default_factory=dict)
    log_epochs: tuple[int, ...] = ()
    forms: tuple[Form, ...] = ()
    metric: str = "accuracy"
    parts: tuple[Part, ...] = ()
    parity: tuple[tuple[str, str], ...] = ()
    budget: str = ""
    uses: tuple[Use, ...] = ()
    about: tuple[tuple[str, str], ...] = ()
    compression: float = 1.0
    file: str = ""
    alike: float | None = None

    @property
    def weights(self) -> int:
        """How many in all."""
        return sum(kernel.weights for kernel in self.kernels)

    @property
    def average_bits(self) -> float:
        """A weight."""
        return sum(k.weights * k.bits for k in self.kernels) / max(1, self.weights)

    def average_bits_at(self, allocation: int) -> float:
        """A weight, at an allocation; a kernel that came later counts as it is now."""
        return sum(
            k.weights * ((k.widths[allocation] if k.widths else None) or k.bits)
            for k in self.kernels
        ) / max(1, self.weights)

    @property
    def ours(self) -> Form:
        """The form that the report is of."""
        return next(form for form in self.forms if form.is_ours)

    @property
    def file_bytes(self) -> int | None:
        """The file's size."""
        return self.ours.file_bytes
