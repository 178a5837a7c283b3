"""Exports a quantized .keras model as a packed .tflite file, checked against LiteRT before it is written.

Examples:
  python tools/export.py runs/demo/model.keras phone.tflite --dataset=digits
  python tools/export.py mine.keras npu.tflite --optimize_for=integer --calibrate_with=train.npy --verify_with=test.npy
"""

import os

# Before TensorFlow is imported; its start-up messages would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# isort: split

import keras
import numpy as np
from absl import flags

import bmpq_tf
from bmpq_tf.console import run as run_program
from bmpq_tf.datasets import DATA_DIR_HELP, load_dataset, normalised_test_images, normalised_training_images
from bmpq_tf.export.containers import MODES
from bmpq_tf.export.static import BORDERS

flags.DEFINE_enum("optimize_for", "size", MODES, "The smallest file, the fastest, or integers only (which is calibrated on the data set).")
flags.DEFINE_enum("border", "float", BORDERS, "What an integer file takes and gives.")
flags.DEFINE_string("dataset", None, "Verify on this data set's test images, calibrate on its training images; verify on random inputs if not given.")
flags.DEFINE_string("data_dir", None, DATA_DIR_HELP)
flags.DEFINE_string(
    "verify_with", None, "Verify on these inputs instead: an .npy file, or an .npz with one array for each input, by its name, or `images`."
)
flags.DEFINE_string("calibrate_with", None, "Calibrate an integer file on these inputs instead: .npy or .npz likewise.")
flags.DEFINE_float("tolerance", None, "For latency and integer: the difference that is close enough, as a share of the outputs' root mean square.")
flags.DEFINE_string("budget", None, "Refuse a model that takes more; by default the budget it was trained for.")
flags.DEFINE_bool("overwrite", False, "Replace an existing file.")

CALIBRATED_ON = 512


def main(arguments: list[str]) -> None:
    """Exports the model named first to the path named second."""
    if len(arguments) != 3:
        raise ValueError(f"Name the .keras model and the .tflite file to write. Received: {arguments[1:]}. See --help.")
    given = flags.FLAGS
    if not os.path.exists(arguments[1]):
        raise FileNotFoundError(f"No such model. Received: '{arguments[1]}'. Train one with tools/train.py --out_dir.")
    # Nothing here trains, so a loss or optimizer of the user's own need not be known.
    model = keras.models.load_model(arguments[1], compile=False)
    images = calibration = None
    if given.dataset:
        dataset = load_dataset(given.dataset, given.data_dir)
        images = normalised_test_images(dataset)
        if given.optimize_for == "integer":
            calibration = normalised_training_images(dataset, CALIBRATED_ON)
    if given.verify_with:
        images = _arrays(given.verify_with, model, "--verify_with")
    if given.calibrate_with:
        calibration = _arrays(given.calibrate_with, model, "--calibrate_with")
    report = bmpq_tf.export_tflite(
        model,
        arguments[2],
        optimize_for=given.optimize_for,
        verify_with=images,
        calibrate_with=calibration,
        border=given.border,
        tolerance=given.tolerance,
        budget=given.budget,
        overwrite=given.overwrite,
    )
    bmpq_tf.summary(model)
    parity = report.parity
    inputs = f"{parity.examples} {'random inputs' if parity.generated else 'images'}"
    # Outputs of one value have no top-1.
    alike = f"largest difference from Keras {parity.max_abs_diff:.2g} of {parity.logit_scale:.3g} on {inputs}"
    if parity.compared:
        alike = f"top-1 equal to Keras on {parity.agreement:.2%} of {inputs}"
    print(
        f"{report.path}: {report.tflite_bytes:,} bytes ({report.zipped_bytes:,} zipped), {report.packed_weight_bytes:,} "
        f"of them packed weights; {alike}"
    )
    if parity.caution:
        print(f"  {parity.caution}")
    for layer in report.layers:
        if layer.note:
            print(f"  {layer.name}: {layer.bits} bits stored in {layer.stored_bits}, {layer.note}")


def _arrays(path: str, model: keras.Model, flag: str) -> list[np.ndarray]:
    """The model's inputs from a file, in the model's order."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"No such file of inputs. Received: {flag}={path}.")
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return [loaded]
    with loaded:
        names = [tensor.name for tensor in model.inputs]
        # As own_model.py and tune.py read them.
        if len(names) == 1 and "images" in loaded and names[0] not in loaded:
            return [loaded["images"]]
        missing = [name for name in names if name not in loaded]
        if missing:
            raise ValueError(f"Arrays of these inputs are missing: {', '.join(missing)}. Received: {flag}={path} with {', '.join(loaded) or 'none'}.")
        return [loaded[name] for name in names]


def run() -> None:
    """The console entry point."""
    run_program(main)


if __name__ == "__main__":
    run()
