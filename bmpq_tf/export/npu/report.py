"""What Vela makes of a file, as plain records."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class VelaKernel:
    """A kernel as Vela stores it.

    Attributes:
        name: the tensor's, as `Weights.name`.
        count: how many weights.
        encoded_bytes: what they take encoded, without biases and scales; `None` for a kernel that
            no operator on the NPU reads.
        cycles: Vela's estimate for all operators that read it, likewise.
        compute_cycles: what they would take without waiting for weights and activations.

    Example:
        >>> kernel = bmpq_tf.VelaKernel("conv/kernel", 64, 32, cycles=100, compute_cycles=80)
        >>> kernel.encoded_bits
        4.0
    """

    name: str
    count: int
    encoded_bytes: int | None
    cycles: int | None
    compute_cycles: int | None

    @property
    def encoded_bits(self) -> float | None:
        """Bits a weight."""
        return None if self.encoded_bytes is None else 8 * self.encoded_bytes / self.count


@dataclasses.dataclass(frozen=True)
class VelaReport:
    """What Vela, Arm's compiler for Ethos-U, makes of a file.

    Attributes:
        accelerator: such as `"ethos-u55-128"`.
        version: Vela's.
        memory: Vela's names for the system and the memory mode that it took.
        npu_operators: how many of Vela's operators run on the NPU. It splits and fuses those of the
            file.
        cpu_operators: what is left to the processor, in the file's words: `"GATHER 'tensor'"`.
        kernels: one for each of `inspect_tflite(path).weights`, in its order.
        flash_bytes: all constants of the NPU: encoded weights, biases with their scales, tables.
        encoded_bytes: the part of it that is weights; those of averages, which Vela makes, too.
        command_bytes: what tells the NPU what to do.
        file_bytes: of the file that Vela writes: what lies in flash on the device.
        sram_bytes: the most that is in use at once.
        seconds: Vela's estimate for one inference; its own words: "internal compiler estimates".

    Example:
        >>> options = {"optimize_for": "integer", "io_dtype": "int8", "calibrate_with": images}
        >>> file = bmpq_tf.export_tflite(model, folder / "model.tflite", **options)
        >>> report = bmpq_tf.inspect_vela(file.path)
        >>> [kernel.count for kernel in report.kernels]
        [36, 1440]
        >>> report.encoded_bytes < report.flash_bytes < report.file_bytes
        True
        >>> report.beside_bytes + sum(kernel.encoded_bytes for kernel in report.kernels)
        4...
    """

    accelerator: str
    version: str
    memory: str
    npu_operators: int
    cpu_operators: tuple[str, ...]
    kernels: tuple[VelaKernel, ...]
    flash_bytes: int
    encoded_bytes: int
    command_bytes: int
    file_bytes: int
    sram_bytes: int
    seconds: float

    @property
    def beside_bytes(self) -> int:
        """What Vela's file holds beside the kernels' weights, which widths hardly change.

        A budget of `npu_flash` leaves it out.
        """
        return self.file_bytes - sum(kernel.encoded_bytes or 0 for kernel in self.kernels)

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return {**dataclasses.asdict(self), "beside_bytes": self.beside_bytes}
