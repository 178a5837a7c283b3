"""Exports a quantized .keras model as a packed .tflite file, which is run in LiteRT and compared
with Keras before it is written.

Examples:
  bmpq-export model.keras phone.tflite --optimize_for=latency --verify_with=test.npz
  bmpq-export mine.keras npu.tflite --optimize_for=integer --calibrate_with=train.npy
  bmpq-export mine.keras mine.tflite --verify_with=test.npz --report=report.html
"""

from absl import flags

import bmpq_tf
from bmpq_tf.cli import report as page
from bmpq_tf.cli.arrays import load_inputs
from bmpq_tf.cli.models import load_model
from bmpq_tf.cli.program import run as run_program
from bmpq_tf.export.integer.static import IO_DTYPES
from bmpq_tf.export.kernels.storage import MODES
from bmpq_tf.export.micro.firmware import check_folder
from bmpq_tf.export.micro.operators import check_installed
from bmpq_tf.export.verification.runtimes import PLACES, check_place

flags.DEFINE_enum(
    "optimize_for",
    "size",
    MODES,
    "The smallest file, the fastest, integers only (which is calibrated), or a microcontroller's.",
)
flags.DEFINE_enum(
    "io_dtype",
    None,
    IO_DTYPES,
    "What an integer file takes and gives; float32 by default, int8 for a microcontroller. Images "
    "that are integers in the model stay so with float32.",
)
flags.DEFINE_enum(
    "activation_bits",
    None,
    ["8", "16"],
    "The width of an integer file's activations; that of training by default, 8 where it was none.",
)
flags.DEFINE_string(
    "verify_with",
    None,
    "Verify on these inputs: an .npy file, or an .npz with one array for each input, by its name, "
    "or `images`. By default on those of --calibrate_with, or on random ones.",
)
flags.DEFINE_string(
    "calibrate_with", None, "Calibrate an integer file on these inputs: .npy or .npz likewise."
)
flags.DEFINE_float(
    "tolerance",
    None,
    "The difference that is close enough, as a share of the outputs' root mean square; of labels, "
    "the share that may differ.",
)
flags.DEFINE_string(
    "budget", None, "Refuse a model that takes more; by default the budget it was trained for."
)
flags.DEFINE_string(
    "firmware",
    None,
    "Also write what a firmware needs into this new folder: the file and a golden test as C++ "
    "arrays, the operators, the size of the arena. Needs --verify_with or --calibrate_with.",
)
flags.DEFINE_enum(
    "verify_on",
    "host",
    PLACES,
    "Verify on this machine, or on an emulated arm64 processor that bmpq-arm64 sets up.",
)
flags.DEFINE_list(
    "inputs",
    None,
    "Start at what these layers give, in place of the model's inputs; the inputs to verify and "
    "calibrate on stay the whole model's.",
)
flags.DEFINE_list(
    "input_shapes",
    None,
    "Fix open sizes of inputs, without the batch's: 32x32x3, or by name image=32x32x3,tokens=20.",
)
flags.DEFINE_bool("overwrite", False, "Replace an existing file.")
flags.DEFINE_integer("verbose", 1, "0 shows no progress.")
# absl shows those of other modules only where this is said.
flags.adopt_module_key_flags(page)


def main(arguments: list[str]) -> None:
    """Exports the model named first to the path named second."""
    if len(arguments) != 3:
        raise ValueError(
            f"Name the .keras model and the .tflite file to write. Received: {arguments[1:]}. See "
            "--help."
        )
    given = flags.FLAGS
    if given.firmware:
        _check_firmware(given)
    page.check_flags(given)
    check_place("--verify_on", given.verify_on)
    model = load_model(arguments[1])
    report = bmpq_tf.export_tflite(
        model,
        arguments[2],
        optimize_for=given.optimize_for,
        verify_with=load_inputs(given.verify_with, model, "--verify_with")
        if given.verify_with
        else None,
        calibrate_with=load_inputs(given.calibrate_with, model, "--calibrate_with")
        if given.calibrate_with
        else None,
        io_dtype=given.io_dtype,
        tolerance=given.tolerance,
        budget=given.budget,
        overwrite=given.overwrite,
        verify_on=given.verify_on,
        activation_bits=int(given.activation_bits) if given.activation_bits else None,
        inputs=given.inputs,
        input_shapes=_shapes(given.input_shapes),
        verbose=given.verbose,
    )
    print(report)
    if given.firmware:
        inputs = load_inputs(given.verify_with or given.calibrate_with, model, "--verify_with")
        names = bmpq_tf.write_firmware(report.path, given.firmware, inputs)
        print(f"{given.firmware}: {', '.join(names)}")
    if given.report:
        page.write(given, model, report, given.verify_with)


def _shapes(words: list[str] | None) -> list | dict | None:
    """What `--input_shapes` says, as `export_tflite` takes it."""
    if not words:
        return None
    try:
        pairs = [
            (name, [int(size) for size in sizes.split("x")]) for name, sizes in map(_pair, words)
        ]
    except ValueError:
        raise ValueError(
            "Sizes are whole numbers joined by x. Received: --input_shapes="
            f"{','.join(words)}. Say 32x32x3, or image=32x32x3,tokens=20."
        ) from None
    return dict(pairs) if all(name for name, _ in pairs) else [shape for _, shape in pairs]


def _pair(word: str) -> tuple[str, str]:
    name, _, sizes = word.rpartition("=")
    return name, sizes


def _check_firmware(given) -> None:
    """Raises before any work what `write_firmware` would raise after it."""
    check_folder(given.firmware)
    check_installed("Firmware")
    if given.optimize_for not in ("micro", "integer"):
        raise ValueError(
            "TFLM runs files of integers only. Received: --firmware, "
            f"--optimize_for={given.optimize_for}. Say --optimize_for=micro."
        )
    if given.inputs:
        raise ValueError(
            "A golden test is of the whole model's inputs. Received: --firmware with --inputs="
            f"{','.join(given.inputs)}. Export without --firmware, then use write_firmware."
        )
    if not (given.verify_with or given.calibrate_with):
        raise ValueError(
            "The golden test needs inputs. Received: --firmware without --verify_with. Give some."
        )


def run() -> None:
    """The console entry point."""
    run_program(main)


if __name__ == "__main__":
    run()
