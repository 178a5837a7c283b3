"""What an export tells of the file that it wrote."""

import dataclasses
import importlib.metadata
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

from bmpq_tf._version import __version__
from bmpq_tf.allocation.budget import Budget
from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.export import report_table
from bmpq_tf.export.kernels import packing
from bmpq_tf.export.micro.verification import MicroReport
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.verification.parity import Parity
from bmpq_tf.model.kernels import KernelState, compression, total_bits

_INTEGER = ("integer", "micro")
_PACKAGES = ("ai-edge-litert", "keras", "litert-quantizer", "tensorflow")


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One kernel in the file.

    Attributes:
        name: its variable path.
        weights: how many.
        bits: the width it was trained at; 32 for float.
        stored_bits: the width of its container in the file.
        pinned: whether its width was fixed.
        sensitivity: as of the last allocation, or `None`.
        note: why it is stored wider than its width, or not computed with integers, or empty.
        compute: `"weight_only"`, `"dynamic"` or `"static"`: how the operator computes with it;
            `"float"` where the kernel stays float.

    Example:
        >>> model = bmpq_tf.quantize_model(float_model, (3,), pin=None)
        >>> report = bmpq_tf.export_tflite(model, folder / "model.tflite")
        >>> [(layer.name, layer.bits, layer.stored_bits) for layer in report.layers]
        [('conv/kernel', 3, 4), ('head/kernel', 3, 4)]
    """

    name: str
    weights: int
    bits: int
    stored_bits: int
    pinned: bool
    sensitivity: float | None
    note: str = ""
    compute: str = "float"


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written, as found in the file; printed, a table of its kernels and what it is worth.

    Attributes:
        path: where it is.
        tflite_bytes: its size.
        packed_weight_bytes: bytes of the quantized kernels' buffers, as found in the file.
        ideal_weight_bytes: `sum of weights * bits / 8` over quantized kernels.
        allocated_bits, float_bits: parameter bits of the model, and of its float32 twin.
        layers: a `LayerReport` for each kernel.
        parity: how the file's answers compare with Keras's.
        optimize_for: the kind of file.
        zipped_bytes: its size in a zip archive, as app packages are.
        micro: for `"micro"`, what TFLM did with the file: its memory, its operators, its answers.
        verified_on: whose answers were compared: `"host"` or `"arm64"`.

    Example:
        >>> report = bmpq_tf.export_tflite(model, folder / "model.tflite", verify_with=images)
        >>> report.compression, report.packed_weight_bytes, report.parity.holds
        (4.0, 1476, True)
        >>> print(report)
        /...
        │ conv/kernel │      36 │    8 │         8 │             │    36 │
        ...
        weights: 1,476 bytes packed, 5,904 in float32: 4.00x fewer parameter bits
        answers: top-1 equal to Keras on 100.00% of 32 inputs, largest difference ...
        ...
    """

    path: str
    tflite_bytes: int
    packed_weight_bytes: int
    ideal_weight_bytes: float
    allocated_bits: int
    float_bits: int
    layers: tuple[LayerReport, ...]
    parity: Parity
    optimize_for: str = "size"
    zipped_bytes: int = 0
    micro: MicroReport | None = None
    verified_on: str = "host"

    def __str__(self) -> str:
        return report_table.as_text(self)

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """What IPython shows of it where a cell ends in it."""
        printer.text(str(self))

    @property
    def compression(self) -> float:
        """How many times fewer parameter bits than float32."""
        return self.float_bits / self.allocated_bits

    @property
    def widened(self) -> int:
        """How many kernels are stored in more bits than their width."""
        return sum(layer.stored_bits > layer.bits for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain data."""
        return {
            **dataclasses.asdict(self),
            "compression": self.compression,
            "widened": self.widened,
        }


def layer_report(
    state: KernelState, stored: Sequence[packing.StoredKernel] | None, mode: str
) -> LayerReport:
    """Tells of one kernel and the tensors that hold it, in a file of this kind."""
    bits = state.bits
    widest = max(stored, key=lambda kernel: kernel.bits).container if stored else None
    container = widest.bits if widest else FLOAT_BITS
    note = widest.note if widest else ""
    if widest is None and mode in _INTEGER and state.quantizer is None:
        container, note = 8, "not trained with a width: rounded to int8 by the export"
    elif widest is None and container != bits:
        note = "not found as a constant of the converted model, so it stays float"
    elif container > bits and not note:
        note = "one constant with a wider kernel of the same values"
    history = state.quantizer.history if state.quantizer else ()
    return LayerReport(
        name=state.kernel.path,
        weights=state.kernel.weights,
        bits=bits,
        stored_bits=container,
        pinned=state.kernel.pinned,
        sensitivity=history[-1]["sensitivity"] if history else None,
        note=note,
        compute=widest.compute if widest else "static" if mode in _INTEGER else "float",
    )


def metadata(
    states: Sequence[KernelState],
    stored: dict[str, list[packing.StoredKernel]],
    budget: Budget | None,
    mode: str,
) -> dict[str, bytes]:
    """Returns what the file tells of itself.

    No clock, no path, so that the same model gives the same bytes.
    """
    told = {
        "format": 1,
        "versions": {
            "bmpq_tf": __version__,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "optimize_for": mode,
        "budget": None if budget is None else budget.to_dict(),
        "compression": round(compression(states), 4),
        "parameter_bits": total_bits(states),
        "kernels": [
            {
                "name": state.kernel.path,
                "bits": state.bits,
                "granularity": state.quantizer.config.granularity if state.quantizer else None,
                "tensors": [kernel.name for kernel in stored.get(state.kernel.path, [])],
            }
            for state in states
        ],
    }
    return {flatbuffer.METADATA: json.dumps(told, separators=(",", ":")).encode()}


def short_metadata(states: Sequence[KernelState], budget: Budget | None) -> dict[str, bytes]:
    """Returns what a file tells of itself where every byte counts: the widths, in the order of the
    model's kernels, and the budget.
    """
    told = {
        "format": 2,
        "bmpq_tf": __version__,
        "budget": None if budget is None else budget.to_dict(),
        "bits": [state.bits for state in states],
    }
    return {flatbuffer.METADATA: json.dumps(told, separators=(",", ":")).encode()}


def zipped_size(content: bytes) -> int:
    """Returns a file's size in a zip archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo("model.tflite"), content, zipfile.ZIP_DEFLATED)
    return len(archive.getvalue())
