"""What can be refused before any work is done.

The path, the options, the model's budget and size.
"""

import os
import pathlib

import keras
import numpy as np

from bmpq_tf.allocation.budget import Budget
from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.arguments import check_known
from bmpq_tf.export.converter import origin
from bmpq_tf.export.errors import ConversionError
from bmpq_tf.export.integer.static import IO_DTYPES, IO_DTYPES_AT
from bmpq_tf.export.kernels.storage import MODES
from bmpq_tf.export.micro.operators import check_installed
from bmpq_tf.export.state import ExportOptions
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.verification.runtimes import check_place
from bmpq_tf.model import keras_graph
from bmpq_tf.model.kernels import KernelState, compression, total_bits, within
from bmpq_tf.wording import listed

# Layers of tables and hashes of Keras's own.
TABLES = (
    keras.layers.TextVectorization,
    keras.layers.StringLookup,
    keras.layers.IntegerLookup,
    keras.layers.Hashing,
    keras.layers.HashedCrossing,
)

# How far averages of equal widths may lie from them.
_WHOLE = 0.01


def check_writable(path: str | os.PathLike, overwrite: bool = False) -> pathlib.Path:
    """Returns the path if a file can be written there; raises before any work is done if not."""
    path = pathlib.Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            f"The path is a folder. Received: path='{path}'. Name a file in it, such as "
            f"'{path / 'model.tflite'}'."
        )
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"The file exists already. Received: path='{path}'. Give another path, or "
            "overwrite=True."
        )
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise PermissionError(
            f"Nothing can be written to '{folder}'. Received: path='{path}'. Give a path in a "
            "folder that is yours."
        )
    return path


def check_options(options: ExportOptions, rounds: set[int]) -> None:
    """Raises ValueError for options that are not known or do not go together, and FileNotFoundError
    for an emulated runtime that is not set up.

    Args:
        options: what is asked for.
        rounds: the widths that the model rounds activations to.
    """
    check_known("optimize_for", options.optimize_for, MODES)
    check_known("io_dtype", options.io_dtype, (*IO_DTYPES, None))
    integer = options.optimize_for in ("integer", "micro")
    check_place("verify_on", options.verify_on)
    if integer or options.activation_bits is not None:
        _check_widths(options, rounds, integer)
    if options.tolerance is not None and not options.tolerance > 0:
        raise ValueError(
            "tolerance= is a positive number, the largest root mean square of the differences "
            f"relative to an output's own. Received: tolerance={options.tolerance!r}."
        )
    if integer and options.calibrate_with is None and not rounds:
        raise ValueError(
            f'optimize_for="{options.optimize_for}" fixes the ranges of activations, and the '
            "model holds none. Received: calibrate_with=None. Give a few hundred inputs like those "
            "that it will meet."
        )
    if not integer and options.calibrate_with is not None:
        raise ValueError(
            'calibrate_with serves optimize_for="integer" and "micro" only. Received: '
            f"optimize_for={options.optimize_for!r}. Leave it out."
        )
    if not integer and options.io_dtype not in (None, "float32"):
        raise ValueError(
            'io_dtype= serves optimize_for="integer" and "micro" only. Received: '
            f"io_dtype={options.io_dtype!r}, optimize_for={options.optimize_for!r}. Leave it out."
        )


def check_states(model: keras.Model) -> None:
    """Raises ValueError for layers that keep something from one call to the next."""
    stateful = [
        origin.described(layer)
        for layer in keras_graph.sublayers(model)
        if isinstance(layer, keras.layers.RNN) and layer.stateful
    ]
    if stateful:
        raise ValueError(
            f"A file keeps nothing from one call to the next, and model '{model.name}' does. "
            f"Received: stateful=True for {', '.join(stateful)}. Make the states inputs and "
            "outputs: `y, *states = LSTM(8, return_state=True)(x, initial_state=[h, c])` in a "
            "model that takes h and c and gives the states, then copy the weights with "
            "`set_weights(trained.get_weights())` and feed each call's states to the next "
            '(docs/guides/phones.md, "Streams"). Nothing was written.'
        )


def _check_widths(options: ExportOptions, rounds: set[int], integer: bool) -> None:
    """Raises ValueError for widths of activations that no integer file has, or has not together."""
    bits, told = options.activation_bits, f"activation_bits={options.activation_bits!r}"
    if bits not in (None, *IO_DTYPES_AT) or (bits is not None and not integer):
        raise ValueError(
            'activation_bits= is 8 or 16 and serves optimize_for="integer" and "micro" only. '
            f"Received: {told}, optimize_for={options.optimize_for!r}."
        )
    if 16 in rounds and (len(rounds) > 1 or bits == 8):
        raise ValueError(
            "An integer file has activations of 16 bits or of 8 and less, not both. Received: a "
            f"model that rounds them to {', '.join(map(str, sorted(rounds)))} bits, {told}. Give "
            "all of its quantizers 16 bits, or none."
        )
    if bits == 16 and rounds and 16 not in rounds:
        raise ValueError(
            "Activations of 16 bits have symmetric ranges, and the model learned others. Received: "
            f"a model that rounds them to {', '.join(map(str, sorted(rounds)))} bits, {told}. "
            "Train it with activation_bits=16 or None, or leave activation_bits= out."
        )
    width = bits or (16 if 16 in rounds else 8)
    if options.io_dtype not in (None, *IO_DTYPES_AT[width]):
        raise ValueError(
            f"With activations of {width} bits inputs and outputs are "
            f"{' or '.join(IO_DTYPES_AT[width])}. Received: io_dtype={options.io_dtype!r}."
        )


def check_micro(model: keras.Model) -> None:
    """Raises what keeps a model from a microcontroller and can be told from its layers.

    Raises:
        ModuleNotFoundError: the extra `micro` is not installed.
        ValueError: an input has an open size, or a layer looks up rows of a table.
    """
    check_installed('optimize_for="micro"')
    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            raise ValueError(
                "A microcontroller's memory is planned beforehand, so every size but the batch's "
                f"must be known. Received: input '{tensor.name}' of shape {tuple(tensor.shape)} in "
                f"model '{model.name}'. Give Input fixed sizes, such as a number of steps."
            )
    for layer in keras_graph.sublayers(model):
        if isinstance(layer, keras.layers.Embedding):
            raise ValueError(
                f"TFLM has no lookup in a packed table, which layer '{layer.name}' (Embedding) is. "
                f"Received: model '{model.name}', optimize_for=\"micro\". Feed it vectors, or take "
                'optimize_for="integer" for a phone.'
            )


def check_layers(model: keras.Model) -> None:
    """Raises ConversionError for layers that no kind of file can hold."""
    for layer in keras_graph.sublayers(model):
        said = f"Layer {origin.described(layer)} of model '{model.name}'"
        if isinstance(layer, TABLES):
            # A part starts at a layer of the model itself.
            outer = next(
                (one for one in model.layers if layer in keras_graph.sublayers(one)), layer
            )
            raise ConversionError(
                f"{said} looks up or hashes what it is given, which no TFLite builtin does. Export "
                f"from what comes behind it on: export_tflite(..., inputs='{outer.name}'), or "
                f"--inputs={outer.name}. The file then takes what '{outer.name}' gives, and the "
                "data for verifying and calibrating stay those of the whole model."
            )
        if isinstance(layer, keras.layers.Conv3D) and layer.groups > 1:
            raise ConversionError(f"{said} does not run in LiteRT. {origin.way_out(layer)}")


def check_budget(kernels: list[KernelState], budget: Budget | None) -> None:
    """Raises ValueError if the model's widths exceed a budget."""
    if budget is not None and not within(budget, kernels):
        raise ValueError(
            f"The model is over its budget, so it is not exported. Received: budget='{budget}'; "
            "the model is "
            f"{compression(kernels):.2f}x smaller than float32 ({total_bits(kernels):,} parameter "
            "bits). Train it until "
            "bmpq_within_budget is 1, or give export_tflite a budget that it meets."
        )


def check_size(model: keras.Model, kernels: list[KernelState]) -> None:
    """Raises ValueError for more weights than a flatbuffer holds as float32."""
    weights = sum(state.kernel.weights for state in kernels)
    largest = max(kernels, key=lambda state: state.kernel.weights).kernel
    if weights * FLOAT_BITS // 8 > flatbuffer.LARGEST_BYTES:
        raise ValueError(
            f"Model '{model.name}' has too many weights to be converted: the converter needs them "
            f"as float32, whatever their widths. Received: {weights:,} "
            f"weights, {weights * FLOAT_BITS // 8:,} bytes; the limit is "
            f"{flatbuffer.LARGEST_BYTES:,}. Export parts of it as models of their own, or "
            f"make it smaller: the largest kernel is '{largest.path}' with {largest.weights:,}."
        )


def check_whole(kernels: list[KernelState]) -> None:
    """Raises ValueError for widths that are none: averages of those of several models."""
    broken = [
        f"'{state.kernel.path}' {bits:.3g} bits"
        for state in kernels
        if state.quantizer
        and abs((bits := float(state.quantizer.bits.numpy())) - round(bits)) > _WHOLE
    ]
    if broken:
        raise ValueError(
            "The model has widths that are no whole numbers, as averages of models of different "
            f"widths have. Received: {listed(broken)}. Average trainable variables and statistics "
            "of BatchNorm only, and give the average its widths by bmpq_tf.assign_bits(model, "
            "{row.path: row.bits for row in bmpq_tf.kernel_table(trained)}). Nothing was written."
        )


def check_finite(model: keras.Model, kernels: list[KernelState]) -> None:
    """Raises ValueError for kernels and trained variables that hold NaN or infinity."""
    variables = [state.variable for state in kernels] + model.trainable_variables
    # Layers of nested models may share a path.
    each = {id(variable): variable for variable in variables}.values()
    broken = [one.path for one in each if not np.isfinite(one.numpy()).all()]
    if broken:
        raise ValueError(
            f"Model '{model.name}' holds NaN or infinity, so its training ran away. Received: "
            f"{listed([repr(path) for path in broken])}. Train it again with a lower "
            "learning rate, or with clipnorm= of the optimizer. Nothing was written."
        )
