"""`export_tflite`: runs the stages of an export one after the other.

The last one writes the file.
"""

import os
import warnings

import keras

from bmpq_tf import progress
from bmpq_tf.allocation.budget import Budget
from bmpq_tf.export import failures
from bmpq_tf.export.report import ExportReport
from bmpq_tf.export.stages import STAGES
from bmpq_tf.export.state import ExportOptions, ExportState


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    optimize_for: str = "size",
    verify_with=None,
    calibrate_with=None,
    io_dtype: str | None = None,
    tolerance: float | None = None,
    budget: "str | float | Budget | None" = None,
    overwrite: bool = False,
    verify_on: str = "host",
    inputs=None,
    input_shapes=None,
    activation_bits: int | None = None,
    verbose: int = 1,
) -> ExportReport:
    """Writes a quantized model as a `.tflite` file that holds exactly the weights that were
    trained; `"integer"` rounds embeddings anew.

    Where the model rounds activations, so does the file; it computes in float32 where the model was
    trained in 16 bits, and is compared with what Keras answers so. The file is written only after
    it was read back, its integers were found equal to the model's, and LiteRT gave the answers that
    Keras gives, with XNNPACK and with the built-in kernels. The report names the kernels that lie
    in a wider type than their width asks for.

    Args:
        model: a trained model from `quantize_model`, or one of quantized layers of a class of your
            own that can be called on symbolic inputs. While it is converted it is frozen in place,
            so nothing else may use it.
        path: where to write; parent folders are made.
        optimize_for: `"size"`: weights packed at 2, 4 and 8 bits, dequantized when the file is
            loaded; computes as Keras does. `"latency"`: int8 arithmetic, activations rounded to 8
            bits as they come; weights in the narrowest type that is no slower than int8.
            `"integer"`: int8 throughout, with fixed ranges of activations: the trained ones where
            the model rounds them. `"micro"`: the same integers for TFLM, the runtime of
            microcontrollers: each kernel at its own width, for one example at a time (a batch size
            of the model's stays), verified in TFLM as well; needs the extra `micro`.
        verify_with: inputs to compare Keras and LiteRT on: arrays, or a data set of batches, not an
            endless one. By default those of `calibrate_with`, or random inputs, whose top-1 is told
            and not judged.
        calibrate_with: for `"integer"` and `"micro"`: inputs like those that the model will meet,
            in the same forms; a few hundred are enough. They set the ranges that no activation
            quantizer sets, and may be left out where there are none; outputs are rounded only by a
            `QuantIdentity` at the end.
        io_dtype: for `"integer"` and `"micro"`: what the file's inputs and outputs are:
            `"float32"`, by default of `"integer"`, `"int8"`, by default of `"micro"`, or `"uint8"`,
            as cameras give pixels; with activations of 16 bits `"int16"` in place of these two.
            Inputs that are integers in the model keep their type with `"float32"`. Otherwise those
            that the model casts to floats, such as images, get it too (a byte as int8 is the byte
            less 128); indices of embeddings never do.
        tolerance: the root mean square of the differences, relative to an output's own, that is
            close enough, in place of the default and of top-1 agreement on `verify_with`. By
            default no answer of a `"size"` file may differ by more than 1e-4 of the largest, ties
            in the rounding of activations apart; 0.1 and 0.2 serve `"latency"` and `"integer"`,
            and for an integer file of a model whose narrowest activation quantizer has 8, 4 or 2
            bits 0.05, 0.15 and 0.4, with activations of 16 bits 0.01. A trained ResNet-20 stays
            below 0.03. Of labels (outputs of integers or truth values), the share that may differ.
        budget: what the model's widths must meet; by default the budget of the model's last
            allocation, where there was one.
        overwrite: whether an existing file may be replaced.
        verify_on: whose answers are compared: `"host"`, this machine's, or `"arm64"`, those of an
            emulated phone's processor, which `bmpq-arm64` sets up. Emulation is slow: a few
            hundred inputs are enough.
        inputs: where the exported part starts: a layer of the model or its name, which stand for
            what it gives, a symbolic tensor of the model, or a list of them; by default at the
            model's own inputs. `verify_with` and `calibrate_with` stay those of the whole model,
            which go through what comes before.
        input_shapes: sizes of the inputs, without the batch's: of the only one, such as
            `(32, 32, 3)`, a list of them, or a dict by the inputs' names. They fix what a model
            leaves open, since some operators convert for known sizes only, and say what a
            subclassed model takes, where a `tf.TensorSpec` in place of a shape says a dtype too; by
            default that of `verify_with` or `calibrate_with`, or what it was built with.
        activation_bits: for `"integer"` and `"micro"`: 8, or 16 for LiteRT's 16x8, int16
            activations beside int8 weights: slower, for audio and regression, where 8 bits lose. By
            default 16 where the model was trained with `activation_bits=16`, and 8 otherwise.
        verbose: 1 shows on a terminal how far an export of more than five seconds is; 0 nothing.

    Returns:
        An `ExportReport`.

    Raises:
        FileExistsError: the path exists and `overwrite` is false.
        FileNotFoundError: the emulated processor is not set up.
        PermissionError: the path cannot be written to.
        ValueError: the model is over the budget, is not quantized, has more than 2 GiB of weights
            in float32, keeps states from one call to the next, rounds activations whose range no
            training batch has set yet, or data does not fit it or is missing.
        ConversionError: a layer has no TFLite builtin.
        ExportError: integers or answers differ from the model's, an operator would stay float in
            an integer file, TFLM does not have it, or a runtime does not run it; nothing was
            written.
        ModuleNotFoundError: `"micro"` without its extra.

    Warns:
        FloatKernelsWarning: once, if kernels were not found in the converted model and stay float,
            which an integer file may not.
        ConstantColumnsWarning: once, if an integer file answers a single value in columns of an
            output where Keras's answers vary.

    Example:
        >>> report = bmpq_tf.export_tflite(model, folder / "small.tflite", verify_with=images)
        >>> report.parity.agreement
        1.0
        >>> options = {"optimize_for": "integer", "calibrate_with": images}
        >>> bmpq_tf.export_tflite(model, folder / "int8.tflite", **options).layers[0].compute
        'static'
    """
    options = ExportOptions(
        path,
        optimize_for,
        verify_with,
        calibrate_with,
        io_dtype,
        tolerance,
        budget,
        overwrite,
        verify_on,
        inputs,
        input_shapes,
        activation_bits,
    )
    state = ExportState(model, options)
    with progress.shown(f"Export of '{model.name}'", verbose=verbose) as work, state.until_end:
        for number, stage in enumerate(STAGES, start=1):
            work.at(f"{stage.__name__.replace('_', ' ')}, stage {number} of {len(STAGES)}")
            with failures.in_words(state):
                stage(state)
    for category, told in state.warnings:
        warnings.warn(told, category, stacklevel=2)
    return state.report
