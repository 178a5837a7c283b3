"""Prints what a .tflite file holds, from the file alone.

Inputs and outputs, operators, weights, stored types, the bits really used, scales, bytes. With
--vela also what Arm's compiler for Ethos-U makes of it.

Examples:
  bmpq-inspect model.tflite
  bmpq-inspect npu.tflite --vela=ethos-u55-128
"""

import json
import os

from absl import flags
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bmpq_tf.cli.program import run as run_program
from bmpq_tf.export.npu.report import VelaKernel, VelaReport
from bmpq_tf.export.npu.vela import inspect_vela
from bmpq_tf.export.report import zipped_size
from bmpq_tf.export.tflite.inspection import Inspection, inspect_tflite

# Of a table that no window cuts.
_WIDEST = 1000

flags.DEFINE_bool("json", False, "Print everything as JSON.")
flags.DEFINE_string(
    "vela", None, "Compile it for this Ethos-U, such as ethos-u55-128, and show what comes of it."
)
flags.DEFINE_string("plot", None, "Draw each kernel's bytes and bits into this picture.")


def main(arguments: list[str]) -> None:
    """Inspects the file named on the command line."""
    if len(arguments) != 2:
        raise ValueError(f"Name one .tflite file. Received: {arguments[1:]}. See --help.")
    given = flags.FLAGS
    found = inspect_tflite(arguments[1])
    compiled = inspect_vela(arguments[1], given.vela) if given.vela is not None else None
    with open(arguments[1], "rb") as file:
        zipped = zipped_size(file.read())
    if given.plot:
        plot(found, given.plot)
    if given.json:
        more = {"vela": compiled.to_dict()} if compiled else {}
        print(json.dumps({**found.to_dict(), "zipped_bytes": zipped, **more}, indent=1))
    else:
        show(found, arguments[1], zipped, compiled)


def labels(found: Inspection) -> list[str]:
    """Returns the kernels' names as trained where the file tells them, the tensors' otherwise."""
    kernels = (found.metadata or {}).get("kernels", [])
    known = {tensor: kernel["name"] for kernel in kernels for tensor in kernel["tensors"]}
    # A file for a microcontroller has no names.
    return [
        known.get(one.name, one.name.split(";")[0]) or f"kernel {number}"
        for number, one in enumerate(found.weights, start=1)
    ]


def show(found: Inspection, name: str, zipped: int, compiled: VelaReport | None = None) -> None:
    """Prints a table and what does not fit one."""
    table = Table(title=escape(name))
    on_npu = ("NPU bytes", "NPU bits", "NPU cycles") if compiled else ()
    for column in ("weights of", "read by", "count", "stored", "bits", "scales", "bytes", *on_npu):
        table.add_column(
            column,
            justify="right" if column in ("count", "bits", "bytes", *on_npu) else "left",
            overflow="fold",
        )
    encoded = compiled.kernels if compiled else [None] * len(found.weights)
    for one, label, kernel in zip(found.weights, labels(found), encoded, strict=True):
        limits = (
            f"{one.scales}: {one.smallest_scale:.1e} to {one.largest_scale:.1e}"
            if one.scales
            else ""
        )
        reader = f"{one.operator}, as float" if one.dequantized else one.operator
        table.add_row(
            label,
            reader,
            f"{one.count:,}",
            one.stored,
            "" if one.bits is None else str(one.bits),
            limits,
            f"{one.bytes:,}",
            *(_encoded(kernel) if kernel else ()),
        )
    console = Console()
    if not console.is_terminal:
        # Nobody's window: lines as long as they are.
        wide = console.options.update(max_width=_WIDEST)
        console = Console(width=max(console.width, console.measure(table, options=wide).maximum))
    console.print(table)
    _show_signatures(found)
    _show_totals(found, zipped)
    if compiled:
        _show_compiled(compiled)


def _encoded(kernel: VelaKernel) -> tuple[str, ...]:
    if kernel.encoded_bytes is None:
        return ("on the CPU", "", "")
    return f"{kernel.encoded_bytes:,}", f"{kernel.encoded_bits:.2f}", f"{kernel.cycles:,}"


def _show_compiled(compiled: VelaReport) -> None:
    """Prints what Vela tells of the whole file."""
    left = len(compiled.cpu_operators)
    print(
        f"{compiled.accelerator} by Vela {compiled.version} ({compiled.memory}): "
        f"{compiled.npu_operators} of {compiled.npu_operators + left} operators on the NPU"
        + (f"; on the processor: {', '.join(compiled.cpu_operators)}" if left else "")
    )
    others = compiled.flash_bytes - compiled.encoded_bytes
    print(
        f"flash: {compiled.flash_bytes:,} bytes of constants, {compiled.encoded_bytes:,} of them "
        f"encoded weights and {others:,} biases, scales and tables; {compiled.command_bytes:,} of "
        f"commands; the file that Vela writes has {compiled.file_bytes:,}"
    )
    print(
        f"SRAM: {compiled.sram_bytes:,} bytes; time for one inference, as Vela estimates it: "
        f"{1e3 * compiled.seconds:.3g} ms"
    )


def _show_signatures(found: Inspection) -> None:
    for signature in found.signatures:
        print(
            "inputs and outputs, -1 is any size:"
            if signature.key is None
            else f'signature "{signature.key}", -1 is any size:'
        )
        for kind in ("inputs", "outputs"):
            for tensor in getattr(signature, kind):
                grid = (
                    ""
                    if tensor.scale is None
                    else f", scale {tensor.scale:.9g}, zero point {tensor.zero_point}"
                )
                print(f"  {kind[:-1]} {tensor.name}: {tensor.stored} {list(tensor.shape)}{grid}")


def _show_totals(found: Inspection, zipped: int) -> None:
    print(f"operators: {', '.join(f'{count} {kind}' for kind, count in found.operators.items())}")
    weights = sum(one.bytes for one in found.weights)
    print(
        f"{found.bytes:,} bytes ({zipped:,} zipped): {weights:,} of weights, "
        f"{found.other_constant_bytes:,} of other constants"
    )
    for problem, present in (
        (f"{found.orphaned_bytes:,} bytes that nothing reads", found.orphaned_bytes),
        (
            "TFLM_DECODE, which only TFLM has, the runtime of microcontrollers",
            "TFLM_DECODE" in found.custom_operators,
        ),
        (
            "custom operators, which a plain runtime does not have: "
            f"{', '.join(found.custom_operators)}",
            set(found.custom_operators) - {"TFLM_DECODE"},
        ),
    ):
        if present:
            print(problem)
    if found.metadata and "versions" not in found.metadata:
        print(
            f'made by bmpq_tf {found.metadata["bmpq_tf"]}; optimize_for="micro", trained at '
            f"{found.metadata['bits']} bits, budget {found.metadata['budget']}"
        )
    elif found.metadata:
        versions = ", ".join(
            f"{package} {version}" for package, version in found.metadata["versions"].items()
        )
        made_for = f'optimize_for="{found.metadata["optimize_for"]}"'
        print(
            f"made by {versions}; {made_for}, {found.metadata['compression']}x fewer parameter "
            f"bits, budget {found.metadata['budget']}"
        )


def plot(found: Inspection, path: str) -> None:
    """Draws bytes as bars, coloured by type, with the bits used written at their end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import patches, pyplot

    from bmpq_tf.files import replacing

    colours = {
        name: f"C{number}"
        for number, name in enumerate(sorted({one.stored for one in found.weights}))
    }
    figure, axes = pyplot.subplots(
        figsize=(9, 1.5 + 0.25 * len(found.weights)), layout="constrained"
    )
    # By place, as several may have one label.
    places = range(len(found.weights))
    bars = axes.barh(places, [one.bytes for one in found.weights])
    axes.set_yticks(places, [label[-48:] for label in labels(found)])
    for bar, one in zip(bars, found.weights, strict=True):
        bar.set_color(colours[one.stored])
    axes.bar_label(
        bars,
        ["float" if one.bits is None else f"{one.bits} bits" for one in found.weights],
        padding=3,
        fontsize=7,
    )
    axes.invert_yaxis()
    axes.set_xlabel("bytes of packed weights")
    axes.legend(
        [patches.Patch(color=colour) for colour in colours.values()],
        list(colours),
        title="stored as",
    )
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format=os.path.splitext(path)[1][1:] or "png")
    pyplot.close(figure)


def run() -> None:
    """The console entry point."""
    run_program(main)


if __name__ == "__main__":
    run()
